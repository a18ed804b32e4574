"""What a user types: the demo, `splitformer serve`, and the client where there is no torch."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from splitformer.serving.local import LocalServices, Ports, StartError
from splitformer_client import connect

ROOT = Path(__file__).parents[2]
LANGUAGES = ["ja", "de", "fr", "es", "zh_CN"]
WITHOUT_TORCH = (
    "import sys; sys.modules['torch'] = None; sys.modules['sentencepiece'] = None;"
    "from splitformer_client.main import main; sys.exit(main())"
)


@pytest.fixture(scope="module")
def local(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServices]:
    log = tmp_path_factory.mktemp("local") / "log"
    with LocalServices(Ports.free(), str(tiny_model), log) as services:
        yield services


def client_command(services: LocalServices, *arguments: str) -> subprocess.CompletedProcess[str]:
    addresses = {
        "SPLITFORMER_ENCODER": services.encoder,
        "SPLITFORMER_DECODER": services.decoder,
    }
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *arguments],
        env={**os.environ, **addresses},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_demo_translates_into_five_languages_from_one_encode() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "demo.py"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
    texts = {code: text for code, text in lines if code in LANGUAGES}
    assert [code for code, _ in lines if code in LANGUAGES] == LANGUAGES
    assert all(texts.values())
    assert len(set(texts.values())) == 5
    assert re.search(r"[\u3040-\u30ff]", texts["ja"]), "Japanese without kana"
    assert re.search(r"[\u4e00-\u9fff]", texts["zh_CN"]), "Chinese without Han characters"
    assert "splitformer_encoder_sources_total 1\n" in done.stdout
    assert 'splitformer_decoder_sessions_opened_total{route="reference"} 5\n' in done.stdout
    assert "/metrics" in done.stdout


def test_the_client_command_runs_without_torch(local: LocalServices) -> None:
    done = client_command(
        local, "translate", "--to", "de,ja", "--max-new-tokens", "4", "Open the file."
    )
    assert done.returncode == 0, done.stderr
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["de", "ja"]
    assert client_command(local, "health").returncode == 0


def test_commands_of_the_server_say_what_to_install_without_torch(local: LocalServices) -> None:
    done = client_command(local, "serve")
    assert done.returncode != 0
    assert "splitformer[server]" in done.stderr
    assert "Traceback" not in done.stderr


def test_importing_the_library_and_the_client_imports_no_torch() -> None:
    program = (
        "import sys, splitformer, splitformer.errors, splitformer.wire, splitformer_client;"
        "assert 'torch' not in sys.modules and 'sentencepiece' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def start_serve(model: Path, ports: Ports) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "splitformer_client", "serve", "--model", str(model)]
    for name in ("encoder", "decoder"):
        command += [f"--{name}-port", str(getattr(ports, name))]
        command += [f"--{name}-metrics-port", str(getattr(ports, f"{name}_metrics"))]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_serve_runs_until_it_is_told_to_stop(tiny_model: Path, number: signal.Signals) -> None:
    ports = Ports.free()
    process = start_serve(tiny_model, ports)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("layout: encoder ")
    addresses = [process.stdout.readline().split()[1] for _ in range(2)]
    with connect(*addresses) as client:
        assert client.translate("Open the file.", to="fr", max_new_tokens=3)[0].tokens
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert '"event": "stopped"' in errors
    assert "Traceback" not in errors


def test_serve_ends_when_a_service_does(tiny_model: Path) -> None:
    process = start_serve(tiny_model, Ports.free())
    assert process.stdout is not None
    for _ in range(3):  # the layout, and where both serve
        process.stdout.readline()
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    os.kill(int(children[-1]), signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == 1


def test_a_bad_model_ends_serve_with_a_reason(tmp_path: Path) -> None:
    process = start_serve(tmp_path / "nowhere", Ports.free())
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "config.json: cannot be read" in errors
    assert "Traceback" not in errors


def test_a_service_that_cannot_start_is_reported_at_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    began = time.monotonic()
    with (
        pytest.raises(StartError, match=r"config\.json: cannot be read"),
        LocalServices(Ports.free(), str(tmp_path / "nowhere"), log, seconds=60),
    ):
        pass
    assert time.monotonic() - began < 50


def test_the_reason_is_found_whichever_service_wrote_last(tmp_path: Path) -> None:
    log = tmp_path / "log"
    event = '{"level": "info", "service": "decoder-service", "event": "settings"}\n'
    log.write_text(f"encoder-service: port: 50051 is taken\n{event}")
    with (
        patch.object(LocalServices, "_start"),
        patch.object(LocalServices, "ended", return_value=2),
        pytest.raises(StartError, match=r"^encoder-service: port: 50051 is taken$"),
        LocalServices(Ports.free(), log=log),
    ):
        pass
