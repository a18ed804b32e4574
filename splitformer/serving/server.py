"""A gRPC server's life: listen, warm up, serve, drain, stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import disable_created_metrics

from splitformer.errors import ConfigurationError
from splitformer.serving.admin import NAME as ADMIN, register_admin
from splitformer.serving.fleet import Fleet
from splitformer.serving.interceptor import RpcInterceptor
from splitformer.serving.layout import cores_of
from splitformer.serving.limits import check_budget_fits
from splitformer.serving.logs import configure_logs, log
from splitformer.serving.metrics_page import MetricsPage
from splitformer.serving.priority import give_way, take_place
from splitformer.serving.process import loop_factory, settle
from splitformer.serving.settings import Settings
from splitformer.serving.telemetry import Telemetry
from splitformer.serving.tls import expiry, server_credentials
from splitformer.serving.traces import start_tracing
from splitformer.v1 import model_pb2

_logger = logging.getLogger("splitformer.server")
_POLL_SECONDS = 0.05
_STOP_SECONDS = 1.0


class Service(Protocol):
    """What a server runs; each service package has one."""

    @property
    def names(self) -> Sequence[str]:
        """Full names of its gRPC services."""

    @property
    def models(self) -> Fleet[Any] | None:
        """Its models, where they can be administered."""

    async def start(self, port: int) -> None:
        """Load and warm up; `port` is the one the server listens on."""

    def info(self) -> model_pb2.ModelInfo:
        """Describe the model, once started."""

    def drain(self) -> None:
        """Take no new work from now on."""

    @property
    def busy(self) -> bool:
        """True while work that was taken is unfinished."""

    async def close(self) -> None:
        """Fail what is unfinished with UNAVAILABLE and let everything go."""


S = TypeVar("S", bound=Settings)
T = TypeVar("T", bound=Service)


class Server:
    """One gRPC server with health, reflection and a metrics page around a service.

    Args:
        settings: Where to listen and how long to drain.
        service: What to serve.
        register: Adds the service's servicer to a gRPC server.
        telemetry: Where to count.
    """

    def __init__(
        self,
        settings: Settings,
        service: T,
        register: Callable[[T, aio.Server], None],
        telemetry: Telemetry,
    ) -> None:
        self._settings = settings
        self._service = service
        self._register = partial(register, service)
        self._telemetry = telemetry
        self._interceptor = RpcInterceptor(telemetry)
        telemetry.expect(service.names)
        telemetry.in_flight.set_function(lambda: self._interceptor.in_flight)
        self._health = health.aio.HealthServicer()
        self._metrics: MetricsPage | None = None
        self._admin: aio.Server | None = None
        self.port = self.admin_port = 0

    @property
    def metrics_port(self) -> int:
        """The port of the metrics page, once started."""
        assert self._metrics is not None
        return self._metrics.port

    async def start(self) -> None:
        """Listen, report NOT_SERVING, warm up, report SERVING.

        Raises:
            ConfigurationError: A port is taken or the model cannot be loaded.
        """
        await self._report(health_pb2.HealthCheckResponse.NOT_SERVING)
        self._server = self._build()
        await self._server.start()
        try:
            await self._service.start(self.port)
        except BaseException:
            await self._stop_listening()
            raise
        self._interceptor.ready = True
        if self._admin is not None:
            await self._admin.start()
        await self._report(health_pb2.HealthCheckResponse.SERVING)

    async def stop(self) -> None:
        """Refuse new work, let running work finish for `drain_seconds` at most, then stop.

        Whoever balances over us hears of it `notice_seconds` before. What is unfinished in the end
        is failed with a reply.
        """
        await self._report(health_pb2.HealthCheckResponse.NOT_SERVING)
        await asyncio.sleep(self._settings.notice_seconds)
        self._service.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_seconds):
                while self._interceptor.in_flight or self._service.busy:  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_SECONDS)
        await self._service.close()
        await self._stop_listening()

    async def _stop_listening(self) -> None:
        if self._admin is not None:
            await self._admin.stop(None)
        await self._server.stop(_STOP_SECONDS)
        if self._metrics is not None:
            await asyncio.to_thread(self._metrics.close)

    def _build(self) -> aio.Server:
        server = aio.server(
            interceptors=[self._interceptor],
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", self._settings.max_message_bytes),
                ("grpc.max_send_message_length", self._settings.max_message_bytes),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.keepalive_time_ms", 60_000),  # a reader that has vanished lets go
                ("grpc.keepalive_timeout_ms", 20_000),
            ],
        )
        self._register(server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (*self._service.names, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        self._listen(server)
        self._build_admin()
        return server

    def _build_admin(self) -> None:
        """Make the listener on which models are administered, if there is to be one."""
        address, models = self._settings.admin_address, self._service.models
        if address is None or models is None:
            return
        self._admin = aio.server(
            interceptors=[self._interceptor], options=[("grpc.so_reuseport", 0)]
        )
        register_admin(models, self._admin)
        reflection.enable_server_reflection((ADMIN, reflection.SERVICE_NAME), self._admin)
        self._telemetry.expect([ADMIN])
        self.admin_port = self._bind(self._admin, "admin", *address)

    def _listen(self, server: aio.Server) -> None:
        host, files = self._settings.host, self._settings.tls_files
        if files:
            self._telemetry.certificate_expiry.set_function(partial(expiry, files))
        self.port = self._bind(server, "port", host, self._settings.port)
        metrics_port = self._settings.metrics_port
        try:
            self._metrics = MetricsPage(self._telemetry.registry, host, metrics_port)
        except OSError as error:
            raise ConfigurationError(
                f"metrics_port: cannot listen on {host}:{metrics_port}: {error}; choose another,"
                " or 0 for a free one"
            ) from error

    def _bind(self, server: aio.Server, setting: str, host: str, port: int) -> int:
        """Let a server listen; return the port."""
        address = f"[{host}]:{port}" if ":" in host.strip("[]") else f"{host}:{port}"
        files = self._settings.tls_files
        try:
            if files is None:
                return server.add_insecure_port(address)
            return server.add_secure_port(address, server_credentials(files))
        except RuntimeError as error:
            raise ConfigurationError(
                f"{setting}: cannot listen on {address}; is it in use? Choose another, or 0 for a"
                " free one"
            ) from error

    async def _report(self, status: int) -> None:
        self._telemetry.serving.set(status == health_pb2.HealthCheckResponse.SERVING)
        for name in ("", *self._service.names):
            await self._health.set(name, status)


def main(
    name: str,
    settings_type: type[S],
    build: Callable[[S, Telemetry], T],
    register: Callable[[T, aio.Server], None],
    arguments: Sequence[str],
) -> int:
    """Run a service as a process until SIGTERM or SIGINT; return the exit status.

    Bad settings and unusable models end it at once with one line that says what and why.
    """
    try:
        settings = settings_type.read(arguments, os.environ)
        check_budget_fits(settings.memory_bytes, settings.model, settings.with_torch)
        take_place(cores_of(settings.cores), settings.nice)
        configure_logs(name, settings.log_level)
        # Without a second series for each counter, which nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        log(_logger, logging.INFO, "settings", **settings.describe())
        if settings.is_exposed:
            log(_logger, logging.WARNING, "listening for other machines without TLS")
        stop_tracing = start_tracing(name, os.environ)
        with asyncio.Runner(loop_factory=loop_factory(settings.event_loop)) as runner:
            runner.run(_run(settings, build, register))
        stop_tracing()
    except ConfigurationError as error:
        sys.stderr.write(f"{name}: {' '.join(str(error).split())}\n")
        return 2
    return 0


async def _run(
    settings: S,
    build: Callable[[S, Telemetry], T],
    register: Callable[[T, aio.Server], None],
) -> None:
    telemetry = Telemetry()
    server = Server(settings, build(settings, telemetry), register, telemetry)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await server.start()
    settle()
    give_way(settings.policy)
    log(_logger, logging.INFO, "serving", port=server.port, metrics_port=server.metrics_port)
    await stopping.wait()
    log(_logger, logging.INFO, "draining")
    await server.stop()
    log(_logger, logging.INFO, "stopped")
