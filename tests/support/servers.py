"""Real servers on free ports, run by an event loop on a thread of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Generic, TypeVar

from decoder_service.service import DecoderService
from decoder_service.servicer import register as register_decoder
from decoder_service.settings import DecoderSettings
from encoder_service.service import EncoderService
from encoder_service.servicer import register as register_encoder
from encoder_service.settings import EncoderSettings
from splitformer.serving.server import Server
from splitformer.serving.telemetry import Telemetry

S = TypeVar("S", bound=EncoderService | DecoderService)
R = TypeVar("R")


class Running(Generic[S]):
    """A server that is serving."""

    def __init__(self, service: S, server: Server, telemetry: Telemetry) -> None:
        self.service = service
        self.server = server
        self.telemetry = telemetry

    @property
    def address(self) -> str:
        """host:port of the gRPC server."""
        return f"127.0.0.1:{self.server.port}"

    @property
    def admin(self) -> str:
        """host:port where its models are administered."""
        return f"127.0.0.1:{self.server.admin_port}"

    def metric(self, name: str, **labels: str) -> float:
        """Return a metric's value, 0 if it has none yet."""
        return self.telemetry.registry.get_sample_value(name, labels) or 0.0


_COMMON: dict[str, Any] = {
    "port": 0,
    "metrics_port": 0,
    "drain_seconds": 2.0,
    "precision": "fp32",  # its greedy targets end as many tests assume
}


class ServerThread:
    """An event loop on a thread, and the servers that run on it.

    Args:
        loop: One that is running already; several loops in one process make grpc.aio log errors.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.loop = loop or asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        if loop is None:
            self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
            self._thread.start()
        self._servers: list[Server] = []

    def run(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine on the servers' loop and wait for it."""
        future: Future[R] = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        return future.result(60)

    def start_encoder(self, model: Path, **settings: Any) -> Running[EncoderService]:
        """Start an encoder service on free ports."""
        read = EncoderSettings(model=str(model), **(_COMMON | settings))
        return self.run(self._start(read, EncoderService, register_encoder))

    def start_decoder(
        self, model: Path, encoder: Running[EncoderService] | None = None, **settings: Any
    ) -> Running[DecoderService]:
        """Start a decoder service on free ports that may pull from `encoder`."""
        encoders = {"encoders": (encoder.address,) if encoder else ()}
        read = DecoderSettings(model=str(model), **(_COMMON | encoders | settings))
        return self.run(self._start(read, DecoderService, register_decoder))

    def stop(self, running: Running[Any]) -> None:
        """Stop one server now."""
        self._servers.remove(running.server)
        self.run(running.server.stop())

    def close(self) -> None:
        """Stop everything."""
        for server in self._servers:
            self.run(server.stop())
        if self._thread is not None:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(10)

    async def _start(self, settings: Any, build: Any, register: Any) -> Any:
        telemetry = Telemetry()
        service = build(settings, telemetry)
        server = Server(settings, service, register, telemetry)
        await server.start()
        self._servers.append(server)
        return Running(service, server, telemetry)
