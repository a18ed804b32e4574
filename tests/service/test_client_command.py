"""The `splitformer` command against real services, in processes of its own."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import splitformer_client
from tests.conftest import Services
from tests.support.servers import ServerThread

TEXT = "Open the file."
LINES = [f"Open file {number}." for number in range(12)]
COMMAND = [sys.executable, "-m", "splitformer_client"]


@pytest.fixture
def environment(services: Services) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "SPLITFORMER_ENCODER": services.encoder.address,
        "SPLITFORMER_DECODER": services.decoder.address,
        "TERM": "xterm",
        "COLUMNS": "160",
    }


@pytest.fixture
def expected(services: Services) -> Callable[[str, str], str]:
    """Returns what the services translate a text to, in six tokens."""

    def translate(text: str, language: str) -> str:
        addresses = services.encoder.address, services.decoder.address
        with splitformer_client.connect(*addresses) as client:
            return client.translate(text, language, max_new_tokens=6)[0].text

    return translate


def run(
    environment: dict[str, str], *arguments: str, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
        env=environment,
    )


def tabbed(language: str, text: str) -> str:
    return "".join(f"{language}\t{line}\n" for line in text.split("\n"))


Expected = Callable[[str, str], str]


# --- translate ------------------------------------------------------------------------------------


def test_text(environment: dict[str, str], expected: Expected) -> None:
    done = run(environment, "translate", "--to", "ja,de", TEXT, "--max-new-tokens", "6")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == tabbed("ja", expected(TEXT, "ja")) + tabbed("de", expected(TEXT, "de"))


def test_lines_keep_their_order(environment: dict[str, str], expected: Expected) -> None:
    lines = [*LINES[:5], "", *LINES[5:]]
    stdin = "\n".join(lines) + "\n"
    done = run(environment, "translate", "-t", "ja", "--max-new-tokens", "6", stdin=stdin)
    assert (done.returncode, done.stderr) == (0, "")
    wanted = [tabbed("ja", expected(line, "ja") if line else "") for line in lines]
    assert done.stdout == "".join(wanted)


def test_files_in_and_a_file_out(
    environment: dict[str, str], expected: Expected, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("\n".join(LINES[:2]))
    (tmp_path / "b.txt").write_text("\n".join(LINES[2:4]) + "\n")
    files = ["--file", str(tmp_path / "a.txt"), "-f", str(tmp_path / "b.txt")]
    out = tmp_path / "out.txt"
    options = ["--to", "de", "--max-new-tokens", "6", "--output", str(out)]
    done = run(environment, "translate", *files, *options)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert out.read_text("utf-8") == "".join(tabbed("de", expected(t, "de")) for t in LINES[:4])


def test_json(environment: dict[str, str], expected: Expected) -> None:
    done = run(environment, "translate", "--to", "ja,de", "--json", "--max-new-tokens", "6", *LINES)
    assert (done.returncode, done.stderr) == (0, "")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["source"] for answer in answers] == LINES
    for answer in answers:
        assert list(answer["translations"]) == ["ja", "de"]
        translation = answer["translations"]["ja"]
        assert translation["text"] == expected(answer["source"], "ja")
        assert translation["end"] in {"eos", "length"}
        assert translation["log_probability"] < 0


def test_options_reach_the_decoder(environment: dict[str, str]) -> None:
    sampling = [
        "--temperature",
        "1.5",
        "--top-k",
        "30",
        "--top-p",
        "0.95",
        "--max-new-tokens",
        "20",
    ]
    texts = [
        run(environment, "translate", "-t", "ja", TEXT, *sampling, "--seed", seed).stdout
        for seed in ("1", "1", "2")
    ]
    assert texts[0] == texts[1] != texts[2]


def test_guesses_and_modes_reach_the_decoder(environment: dict[str, str]) -> None:
    common = ("translate", "-t", "de", TEXT, "--max-new-tokens", "12")
    choices = (
        *(("--draft", draft) for draft in ("off", "copy", "jacobi")),
        ("--mode", "loop"),
        ("--mode", "parallel"),
    )
    texts = {run(environment, *common, *choice).stdout for choice in choices}
    assert len(texts) == 1
    refused = run(environment, *common, "--mode", "parallel", "--temperature", "0.5")
    assert refused.stderr.startswith("error: options.temperature: must be unset")
    assert run(environment, *common, "--mode", "sideways").returncode == 2


def test_long_text(environment: dict[str, str]) -> None:
    text = " ".join(f"Do you want to delete file {number}?" for number in range(12))
    split = run(environment, "translate", "--to", "de", text, "--max-new-tokens", "3")
    assert split.returncode == 0
    refused = run(environment, "translate", "--to", "de", text, "--long-text", "refuse")
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert refused.stderr.startswith("error: source.text: ")
    assert refused.stderr.endswith("(SOURCE_TOO_LONG)\n")


def test_an_unknown_language_names_the_known_ones(environment: dict[str, str]) -> None:
    done = run(environment, "translate", "--to", "ja,tlh", stdin=f"\n{TEXT}\n")
    assert done.returncode == 1
    assert done.stderr == (
        "error: line 2: target_language: must be one of ja, de, fr, es, zh_CN, got 'tlh'"
        " (UNKNOWN_LANGUAGE)\n"
    )


def test_lines_are_answered_while_the_input_is_open(
    environment: dict[str, str], expected: Expected
) -> None:
    command = [*COMMAND, "translate", "--to", "ja", "--max-new-tokens", "6"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=environment,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in LINES[:3]:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            for wanted in expected(line, "ja").split("\n"):
                assert process.stdout.readline() == f"ja\t{wanted}\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (130, "")


def test_an_interrupt_cancels_the_calls(
    environment: dict[str, str], services: Services, servers: ServerThread
) -> None:
    decoder = servers.start_decoder(services.model, services.encoder, idle_seconds=1.0)
    environment["SPLITFORMER_DECODER"] = decoder.address
    text = " ".join([TEXT] * 3000)
    command = [*COMMAND, "translate", "--to", "ja,de", "--file", "/dev/stdin"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=environment,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(text + "\n")
        process.stdin.flush()
        eventually(lambda: decoder.service.load().running > 0)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=20)
    assert (process.returncode, out, errors) == (130, "", "")
    eventually(lambda: decoder.service.load().used_bytes == 0)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


# --- on a terminal --------------------------------------------------------------------------------


def on_terminal(environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    """Run the command on a terminal; returns its exit status and all that it wrote there."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
        env=environment,
    )
    os.close(slave)
    written = b""
    while select.select([master], [], [], 30)[0]:
        try:
            written += os.read(master, 65536)
        except OSError:  # the other side is closed
            break
    os.close(master)
    return process.wait(30), written.decode("utf-8")


def test_a_terminal_gets_one_line_per_language(environment: dict[str, str]) -> None:
    status, written = on_terminal(
        environment, "translate", "-t", "ja,de", TEXT, "--max-new-tokens=6"
    )
    assert status == 0
    assert "\x1b[1;36mja" in written
    assert "\x1b[1;36mde" in written
    assert "\t" not in written


def test_a_terminal_gets_a_progress_bar_for_files(
    environment: dict[str, str], expected: Expected, tmp_path: Path
) -> None:
    (tmp_path / "in.txt").write_text("\n".join(LINES))
    arguments = ["translate", "-t", "de", "-f", str(tmp_path / "in.txt"), "--max-new-tokens", "6"]
    out = tmp_path / "out.txt"
    status, written = on_terminal(environment, *arguments, "-o", str(out))
    assert status == 0
    assert "/12" in written
    assert out.read_text("utf-8") == "".join(tabbed("de", expected(line, "de")) for line in LINES)
    status, shared = on_terminal(environment, *arguments)
    assert status == 0
    assert shared.count("de") >= len(LINES)


# --- info and health ------------------------------------------------------------------------------


def test_score(environment: dict[str, str]) -> None:
    done = run(environment, "score", "--to", "de", TEXT, "Datei", "Menü")
    assert done.returncode == 0, done.stderr
    scores, targets = zip(*(line.split("\t") for line in done.stdout.splitlines()), strict=True)
    assert targets == ("Datei", "Menü")
    assert all(float(score) < 0 for score in scores)
    done = run(environment, "score", "--to", "de", "--json", TEXT, "Datei")
    answer = json.loads(done.stdout)
    assert answer["target"] == "Datei"
    assert answer["log_probability"] == pytest.approx(float(scores[0]), abs=1e-3)
    assert answer["log_probability"] == pytest.approx(
        sum(token["log_probability"] for token in answer["tokens"]), abs=1e-4
    )
    assert (
        "error: target: must be at most 47 tokens long, got 501"
        in run(environment, "score", "--to", "de", TEXT, "x" * 500).stderr
    )


def test_info(environment: dict[str, str]) -> None:
    table = run(environment, "info")
    assert table.returncode == 0
    assert "ja, de, fr, es, zh_CN" in table.stdout
    assert "tiny-0" in table.stdout
    plain = json.loads(run(environment, "info", "--json").stdout)
    assert plain["encoder"]["fingerprint"] == plain["decoder"]["fingerprint"]
    assert plain["encoder"]["target_languages"] == ["ja", "de", "fr", "es", "zh_CN"]


def test_health(environment: dict[str, str], services: Services) -> None:
    both = run(environment, "health")
    encoder, decoder = services.encoder.address, services.decoder.address
    assert (both.returncode, both.stderr) == (0, "")
    assert both.stdout == (
        f"encoder\t{encoder}\t(server)\tSERVING\n"
        f"encoder\t{encoder}\tsplitformer.v1.EncoderService\tSERVING\n"
        f"decoder\t{decoder}\t(server)\tSERVING\n"
        f"decoder\t{decoder}\tsplitformer.v1.DecoderService\tSERVING\n"
    )


def test_health_of_one_service(
    environment: dict[str, str], services: Services, servers: ServerThread
) -> None:
    decoder = servers.start_decoder(services.model, services.encoder)
    servers.stop(decoder)
    environment["SPLITFORMER_DECODER"] = decoder.address
    assert run(environment, "health", "--service", "encoder").returncode == 0
    assert run(environment, "health", "--service", "decoder").returncode == 1
    assert run(environment, "health").returncode == 1
