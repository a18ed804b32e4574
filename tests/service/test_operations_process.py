"""The services as processes: settings, start, SIGTERM, exit statuses and what they print."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import grpc
import pytest

from decoder_service.service import DecoderService
from decoder_service.servicer import register as register_decoder
from decoder_service.settings import DecoderSettings
from encoder_service.service import EncoderService
from encoder_service.servicer import register as register_encoder
from encoder_service.settings import EncoderSettings
from splitformer.serving.server import main
from splitformer.v1.decoder_service_pb2_grpc import DecoderServiceStub
from splitformer.v1.encoder_service_pb2_grpc import EncoderServiceStub
from tests.support.certificates import Authority
from tests.support.rpc import Caller, collected, eventually

ROOT = Path(__file__).parents[2]
FREE_PORTS = ("--port", "0", "--metrics-port", "0")


class Process:
    """A service in a process of its own, with every warning of Python's shown."""

    def __init__(self, package: str, log: IO[str], *flags: str) -> None:
        self._log = log
        command = [sys.executable, "-X", "dev", "-m", package, *FREE_PORTS, *flags]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    def events(self) -> list[dict[str, Any]]:
        """What it logged, but for what asyncio's debug mode says of a turn on a busy machine."""
        self._log.flush()
        lines = Path(self._log.name).read_text(encoding="utf-8").splitlines()
        events = [json.loads(line) for line in lines]
        return [event for event in events if not event["event"].startswith("Executing ")]

    def port(self) -> int:
        """The port it serves on, once it does."""
        eventually(lambda: any(event["event"] == "serving" for event in self.events()))
        return next(int(e["port"]) for e in self.events() if e["event"] == "serving")

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        return self._process.wait(30)

    def policies(self) -> set[int]:
        """How its threads are scheduled."""
        threads = Path(f"/proc/{self._process.pid}/task").iterdir()
        return {os.sched_getscheduler(int(thread.name)) for thread in threads}

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def process(package: str, *flags: str) -> Iterator[Process]:
    with tempfile.NamedTemporaryFile("w", suffix=".log") as log:
        running = Process(package, log, *flags)
        try:
            yield running
        finally:
            running.kill()


def test_two_processes_translate_and_end_with_status_0_on_sigterm(tiny_model: Path) -> None:
    model = ("--model", str(tiny_model))
    with (
        process("encoder_service", *model) as encoder,
        process("decoder_service", *model, "--encoders", "127.0.0.1:*") as decoder,
        grpc.insecure_channel(f"127.0.0.1:{encoder.port()}") as encoder_channel,
        grpc.insecure_channel(f"127.0.0.1:{decoder.port()}") as decoder_channel,
    ):
        caller = Caller(None, None)
        caller.encoder = EncoderServiceStub(encoder_channel)
        caller.decoder = DecoderServiceStub(decoder_channel)
        reference = caller.reference()
        sessions = [caller.open_reference(reference) for _ in range(4)]
        caller.release(reference)
        encoder.terminate()
        calls = [caller.start(session, close_on_end=True) for session in sessions]
        heads = [next(call) for call in calls]
        decoder.terminate()
        assert {
            len(collected([head, *call]).tokens) for head, call in zip(heads, calls, strict=True)
        } == {48}
        assert encoder.wait() == 0
        assert decoder.wait() == 0
        for running in (encoder, decoder):
            events = running.events()  # each line parses, so there is no warning
            assert [e["event"] for e in events if e["event"] != "rpc"] == [
                "settings",
                "serving",
                "draining",
                "stopped",
            ]
            assert events[0]["model"] == str(tiny_model)
            assert all(e["code"] == "OK" for e in events if e["event"] == "rpc")


def test_a_service_that_serves_gives_way_if_it_is_told_to(tiny_model: Path) -> None:
    model = ("--model", str(tiny_model))
    with (
        process("encoder_service", *model, "--policy", "idle") as encoder,
        process("decoder_service", *model) as decoder,
    ):
        assert encoder.port()
        assert encoder.policies() == {os.SCHED_IDLE}
        assert decoder.port()
        assert decoder.policies() == {os.SCHED_OTHER}


def test_streams_of_a_process_that_dies_end_with_unavailable(tiny_model: Path) -> None:
    """Between two tokens or within a step: nothing hangs, and what was told was right."""
    model = ("--model", str(tiny_model))
    with (
        process("encoder_service", *model) as encoder,
        process("decoder_service", *model) as decoder,
        grpc.insecure_channel(f"127.0.0.1:{encoder.port()}") as encoder_channel,
        grpc.insecure_channel(f"127.0.0.1:{decoder.port()}") as decoder_channel,
    ):
        caller = Caller(None, None)
        caller.encoder = EncoderServiceStub(encoder_channel)
        caller.decoder = DecoderServiceStub(decoder_channel)
        memory = caller.memory()
        expected = caller.generate(caller.open(memory)).ids
        sessions = [caller.open(memory) for _ in range(8)]
        calls = [caller.start(session) for session in sessions]
        heads = [[token.id for token in next(call).tokens.tokens] for call in calls]
        decoder.kill()
        for head, call in zip(heads, calls, strict=True):
            ids, failure = head, None
            try:
                for part in call:
                    ids += [token.id for token in part.tokens.tokens]
            except grpc.RpcError as error:
                failure = error.code()
            assert ids == expected[: len(ids)]
            whole = len(ids) == len(expected)
            assert failure is grpc.StatusCode.UNAVAILABLE or (failure is None and whole)


def test_bad_settings_end_a_process_with_status_2(tiny_model: Path) -> None:
    with process("encoder_service", "--model", str(tiny_model), "--speed", "9") as running:
        assert running.wait() == 2


# --- the same without a process for each case


@pytest.fixture(autouse=True)
def _root_logger_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def failed(capsys: pytest.CaptureFixture[str], *flags: str, decoder: bool = False) -> str:
    """Run a service that must end at once with status 2; return the line that says why."""
    if decoder:
        status = main("svc", DecoderSettings, DecoderService, register_decoder, flags)
    else:
        status = main("svc", EncoderSettings, EncoderService, register_encoder, flags)
    assert status == 2
    lines = capsys.readouterr().err.splitlines()
    plain = [line for line in lines if not line.startswith("{")]
    assert len(plain) == 1, lines
    assert lines[-1] == plain[0]
    assert plain[0].startswith("svc: ")
    return plain[0]


BAD_FLAGS = [
    (("--speed", "9"), "unrecognized arguments: --speed 9; --help lists all settings"),
    (("--port",), "argument --port: expected one argument; --help lists all settings"),
    (("--port", "x"), "--port: must be a valid int, got 'x'"),
    (("--port", "70000"), "port: must be finite and 0 to 65535, got 70000"),
    (("--metrics-port", "-1"), "metrics_port: must be finite and 0 to 65535, got -1"),
    (("--drain-seconds", "inf"), "drain_seconds: must be finite and at least 0, got inf"),
    (("--drain-seconds", "nan"), "drain_seconds: must be finite and at least 0, got nan"),
    (("--memory-bytes", "5 parsecs"), "--memory-bytes: must be a valid int, got '5 parsecs'"),
    (("--log-level", "loud"), "log_level: must be debug, info, warning or error, got 'loud'"),
    (("--memory-dtype", "f8"), "memory_dtype: must be one of f32, f16, bf16, i8, got 'f8'"),
]


@pytest.mark.parametrize("decoder", [False, True], ids=["encoder", "decoder"])
@pytest.mark.parametrize(("flags", "line"), BAD_FLAGS, ids=lambda value: str(value)[:20])
def test_a_bad_flag_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], line: str, decoder: bool
) -> None:
    assert failed(capsys, *flags, decoder=decoder) == f"svc: {line}"


def test_a_bad_variable_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPLITFORMER_ENCODER_MAX_QUEUE", "many")
    expected = "svc: SPLITFORMER_ENCODER_MAX_QUEUE: must be a valid int, got 'many'"
    assert failed(capsys) == expected
    monkeypatch.delenv("SPLITFORMER_ENCODER_MAX_QUEUE")
    monkeypatch.setenv("SPLITFORMER_ENCODER_SPEED", "9")
    line = failed(capsys)
    assert line.startswith("svc: SPLITFORMER_ENCODER_SPEED: no such setting; known: ")
    assert "SPLITFORMER_ENCODER_MODEL" in line


def test_settings_that_contradict_are_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    line = failed(capsys, "--lease-seconds", "700")
    assert line == "svc: lease_seconds: must be at most max_lease_seconds (600.0), got 700.0"


@pytest.mark.parametrize("decoder", [False, True], ids=["encoder", "decoder"])
def test_a_port_in_use_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], tiny_model: Path, decoder: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        model = ("--model", str(tiny_model))
        line = failed(capsys, *model, "--metrics-port", "0", "--port", port, decoder=decoder)
        assert line.startswith(f"svc: port: cannot listen on 127.0.0.1:{port}")
        assert "Choose another" in line
        line = failed(capsys, *model, "--metrics-port", port, "--port", "0", decoder=decoder)
        assert line.startswith(f"svc: metrics_port: cannot listen on 127.0.0.1:{port}")


@pytest.mark.parametrize("decoder", [False, True], ids=["encoder", "decoder"])
def test_unusable_tls_files_are_told_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_model: Path, decoder: bool
) -> None:
    flags = ("--model", str(tiny_model), *FREE_PORTS)
    ours, other = Authority(tmp_path).pair("ours"), Authority(tmp_path / "other").pair("other")
    own = ("--tls-certificate", str(ours.certificate), "--tls-key")
    line = failed(capsys, *flags, *own, "absent.key", decoder=decoder)
    assert line == "svc: tls_key: 'absent.key' cannot be read: No such file or directory"
    line = failed(capsys, *flags, *own, str(other.key), decoder=decoder)
    assert line.startswith(f"svc: tls_key: '{other.key}' is not the key of tls_certificate")
    client_ca = ("--tls-client-ca", "absent.pem")
    line = failed(capsys, *flags, *own, str(ours.key), *client_ca, decoder=decoder)
    assert line == "svc: tls_client_ca: 'absent.pem' cannot be read: No such file or directory"


def test_an_unusable_authority_of_encoders_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], tiny_model: Path
) -> None:
    flags = ("--model", str(tiny_model), *FREE_PORTS, "--encoder-tls", "true")
    line = failed(capsys, *flags, "--encoder-ca", "absent.pem", decoder=True)
    assert line == "svc: encoder_ca: 'absent.pem' cannot be read: No such file or directory"


@pytest.mark.parametrize("decoder", [False, True], ids=["encoder", "decoder"])
def test_an_unusable_model_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_model: Path, decoder: bool
) -> None:
    flags = ("--model", str(tmp_path), *FREE_PORTS)
    assert f"model: '{tmp_path}'" in failed(capsys, *flags, decoder=decoder)
    (tmp_path / "config.json").write_text("{")
    assert "is not JSON" in failed(capsys, *flags, decoder=decoder)
    (tmp_path / "config.json").write_text('{"model_type": "splitformer", "name": "x"}')
    assert "missing field 'architecture'" in failed(capsys, *flags, decoder=decoder)
    config = json.loads((tiny_model / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"target_languages": 5}))
    assert "a field has the wrong type" in failed(capsys, *flags, decoder=decoder)
    for name in ("config.json", "tokenizer.model"):
        (tmp_path / name).write_bytes((tiny_model / name).read_bytes())
    assert "model.safetensors: cannot be read" in failed(capsys, *flags, decoder=decoder)
    (tmp_path / "model.safetensors").write_bytes(b"rubbish")
    assert "model.safetensors: cannot be read" in failed(capsys, *flags, decoder=decoder)


def test_help_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main("svc", DecoderSettings, DecoderService, register_decoder, ["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for name in DecoderSettings().describe():
        assert "--" + name.replace("_", "-") in text
