"""Both services on this machine, as two processes: for development and the demo."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import filterfalse
from pathlib import Path
from typing import IO, Annotated, Self

import grpc
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc

from splitformer.serving.ending import unwind_on
from splitformer.serving.layout import Layout

_POLL_SECONDS = 0.05
_HOST = "127.0.0.1"
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StartError(RuntimeError):
    """A service ended before it was serving; the message is what it said last."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the two services listen."""

    encoder: int = 50051
    encoder_metrics: int = 9101
    decoder: int = 50052
    decoder_metrics: int = 9102

    @classmethod
    def free(cls) -> Ports:
        """Return the usual ports, each replaced by a free one if it is taken."""
        usual = cls()
        names = ("encoder", "encoder_metrics", "decoder", "decoder_metrics")
        return cls(**{name: _free_port(getattr(usual, name)) for name in names})

    @classmethod
    def any(cls) -> Ports:
        """Return ports that nobody uses or prefers, so that several runs get in nobody's way."""
        return cls(*(_free_port(0) for _ in range(4)))


@dataclass(slots=True)
class LocalServices:
    """An encoder and a decoder service as child processes; a context manager.

    Attributes:
        ports: Where they listen, on the loopback interface.
        model: Model folder; empty: the embedded model.
        log: Where their logs go; None: to our standard error.
        seconds: Longest wait until both are serving.
        flags: More flags of both services.
        decoder_flags: More flags of the decoder service.
        layout: Cores, threads and niceness of both; None: what the services do by themselves.
    """

    ports: Ports = field(default_factory=Ports)
    model: str = ""
    log: Path | None = None
    seconds: float = 60.0
    flags: Sequence[str] = ()
    decoder_flags: Sequence[str] = ()
    layout: Layout | None = None
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def encoder(self) -> str:
        """host:port of the encoder service."""
        return f"{_HOST}:{self.ports.encoder}"

    @property
    def decoder(self) -> str:
        """host:port of the decoder service."""
        return f"{_HOST}:{self.ports.decoder}"

    def __enter__(self) -> Self:
        ports = self.ports
        try:
            encoder_place, decoder_place = self._places()
            self._start("encoder_service", ports.encoder, ports.encoder_metrics, *encoder_place)
            flags = ("--encoders", self.encoder, *decoder_place, *self.decoder_flags)
            self._start("decoder_service", ports.decoder, ports.decoder_metrics, *flags)
            for address in (self.encoder, self.decoder):
                self._wait_until_serving(address)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        for process in self._processes:
            process.wait()
        self._processes.clear()

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of "encoder" and "decoder"."""
        return dict(zip(("encoder", "decoder"), (p.pid for p in self._processes), strict=True))

    def ended(self) -> int | None:
        """Return the exit status of a service that has ended, None while both run."""
        for process in self._processes:
            if process.poll() is not None:
                return process.returncode
        return None

    def _places(self) -> tuple[list[str], list[str]]:
        """Flags for where the services run; what the environment says of it counts."""
        if self.layout is None:
            return [], []
        return (
            self.layout.encoder.flags("SPLITFORMER_ENCODER_", os.environ),
            self.layout.decoder.flags("SPLITFORMER_DECODER_", os.environ),
        )

    def _start(self, module: str, port: int, metrics_port: int, *more: str) -> None:
        flags = ["--port", str(port), "--metrics-port", str(metrics_port), *more]
        flags += ["--host", _HOST, "--model", self.model, *self.flags]
        command = [sys.executable, "-m", module, *flags]
        stderr: IO[bytes] | None = self.log.open("ab") if self.log else None
        # A group of its own: Ctrl-C reaches us alone, and we tell them to drain.
        with uninterrupted():
            process = subprocess.Popen(command, stderr=stderr, start_new_session=True)
            self._processes.append(process)
        if stderr is not None:
            stderr.close()

    def _wait_until_serving(self, address: str) -> None:
        deadline = time.monotonic() + self.seconds
        while self.ended() is not None or not is_serving(address):
            if self.ended() is not None:
                raise StartError(self._last_words())
            if time.monotonic() > deadline:
                raise StartError(f"{address} is not serving after {self.seconds:.0f} s")
            time.sleep(_POLL_SECONDS)

    def _last_words(self) -> str:
        """Return the last line of the log that says of trouble; both services write there."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log else []
        said = filterfalse(_is_news, reversed(lines))
        return next(said, "a service ended before it was serving")


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let signals that would raise wait: one that cuts into a start loses sight of the process."""
    came: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():
        numbers = (*_ENDING, signal.SIGALRM)
        raising = filter(lambda number: callable(signal.getsignal(number)), numbers)
        before = {n: signal.signal(n, lambda number, frame: came.append(number)) for n in raising}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for late in came:
            signal.raise_signal(late)


def serve(
    model: Annotated[str, typer.Option(help="Model folder; empty: the embedded model.")] = "",
    encoder_port: Annotated[int, typer.Option(help="Port of the encoder service.")] = 50051,
    decoder_port: Annotated[int, typer.Option(help="Port of the decoder service.")] = 50052,
    encoder_metrics_port: Annotated[
        int, typer.Option(help="Port of the encoder's /metrics page.")
    ] = 9101,
    decoder_metrics_port: Annotated[
        int, typer.Option(help="Port of the decoder's /metrics page.")
    ] = 9102,
) -> None:
    """Run both services on this machine until Ctrl-C; logs go to standard error."""
    if importlib.util.find_spec("sentencepiece") is None:
        typer.echo("error: serve needs what `pip install splitformer[server]` installs", err=True)
        raise typer.Exit(1)
    ports = Ports(encoder_port, encoder_metrics_port, decoder_port, decoder_metrics_port)
    unwind_on(_ENDING, lambda number: KeyboardInterrupt())
    layout = Layout.default()
    try:
        with LocalServices(ports, model, layout=layout) as services:
            typer.echo(layout.line)
            typer.echo(f"encoder {services.encoder}  metrics {_page(ports.encoder_metrics)}")
            typer.echo(f"decoder {services.decoder}  metrics {_page(ports.decoder_metrics)}")
            while services.ended() is None:
                time.sleep(_POLL_SECONDS)
    except KeyboardInterrupt:
        return
    except StartError as error:
        typer.echo(f"error: {error}", err=True)
    raise typer.Exit(1)


def _is_news(line: str) -> bool:
    """Return whether a line of the log is an event that went as it should."""
    try:
        event = json.loads(line)
    except ValueError:
        return False
    return isinstance(event, dict) and event.get("level") == "info"


def _page(port: int) -> str:
    return f"http://{_HOST}:{port}/metrics"


def is_serving(address: str) -> bool:
    """Tell whether a service answers, and serves.

    It is asked over a connection of its own: a channel that was refused tries again seconds later.
    """
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=1.0)  # type: ignore[attr-defined]
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _free_port(preferred: int) -> int:
    for port in dict.fromkeys((preferred, 0)):
        with socket.socket() as probe:
            try:
                probe.bind((_HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise StartError("no port is free")
