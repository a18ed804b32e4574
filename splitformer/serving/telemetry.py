"""Metrics: the registry of one service, the gRPC layer's metrics, and the page they are read from.

Names follow go-grpc-prometheus at the gRPC layer and `splitformer_` elsewhere, in base units.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable
from wsgiref.simple_server import WSGIRequestHandler, make_server

from google.protobuf import descriptor_pool
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from splitformer.errors import Code
from splitformer.serving.reasons import REASONS

_POLL_SECONDS = 0.05

LATENCY_BUCKETS = (
    *(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0),
)
"""Seconds, in 1-2-5 steps; for requests and their parts."""

FIRST_TOKEN_BUCKETS = LATENCY_BUCKETS[2:]
"""Seconds; for the time to the first token."""

INTER_TOKEN_BUCKETS = (*LATENCY_BUCKETS[:12], 5.0)
"""Seconds; for the time between two tokens."""


class Telemetry:
    """The registry of one service and what the gRPC layer counts in it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        labels = ("grpc_service", "grpc_method")
        self.started = Counter("grpc_server_started", "RPCs begun.", labels, registry=self.registry)
        self.handled = Counter(
            "grpc_server_handled",
            "RPCs ended, by status code.",
            (*labels, "grpc_code"),
            registry=self.registry,
        )
        self.received = Counter(
            "grpc_server_msg_received", "Messages received.", labels, registry=self.registry
        )
        self.sent = Counter(
            "grpc_server_msg_sent", "Messages sent.", labels, registry=self.registry
        )
        self.handling_seconds = Histogram(
            "grpc_server_handling_seconds",
            "Whole RPCs.",
            labels,
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.failures = Counter(
            "splitformer_failures",
            "RPCs that ended with an error, by status code and reason.",
            ("grpc_code", "reason"),
            registry=self.registry,
        )
        self.in_flight = Gauge("splitformer_in_flight", "RPCs running.", registry=self.registry)
        self.serving = Gauge(
            "splitformer_serving",
            "1 from the end of warm-up to the beginning of the end, else 0.",
            registry=self.registry,
        )
        self.info = Gauge(
            "splitformer_model_info",
            "Always 1; its labels say what is served, and how.",
            ("model", "precision", "numerics", "version"),
            registry=self.registry,
        )
        self.model_bytes = Gauge(
            "splitformer_model_bytes",
            "Bytes that the weights of a loaded model take.",
            ("model",),
            registry=self.registry,
        )
        self.model_requests = Counter(
            "splitformer_model_requests",
            "Sources encoded with a model, or sessions opened on it.",
            ("model",),
            registry=self.registry,
        )
        self.certificate_expiry = Gauge(
            "splitformer_tls_certificate_expiry_timestamp_seconds",
            "When the server's certificate expires, as seconds since 1970; 0 without TLS.",
            registry=self.registry,
        )
        for code, reason in REASONS:
            self.failures.labels(code, reason)

    def expect(self, services: Iterable[str]) -> None:
        """Let all series of our services exist, at 0, so that the first event is an increase."""
        for service in services:
            for method in descriptor_pool.Default().FindServiceByName(service).methods:
                for metric in (self.started, self.received, self.sent, self.handling_seconds):
                    metric.labels(service, method.name)
                for code in Code:
                    self.handled.labels(service, method.name, code.name)

    def ended(self, service: str, method: str, code: Code, reason: str, seconds: float) -> None:
        """Count an RPC that has ended."""
        self.handling_seconds.labels(service, method).observe(seconds)
        self.handled.labels(service, method, code.name).inc()
        if code is not Code.OK:
            self.failures.labels(code.name, reason or code.name).inc()


class MetricsPage:
    """The `/metrics` page of a registry.

    Raises:
        OSError: The port is taken.
    """

    def __init__(self, telemetry: Telemetry, host: str, port: int) -> None:
        app = make_wsgi_app(telemetry.registry)
        kind = _server_kind(host, port)
        self._server = make_server(host, port, app, kind, handler_class=_QuietHandler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="metrics", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base's name)
        """Log nothing: a page that is read every few seconds is no news."""


def _server_kind(host: str, port: int) -> type[ThreadingWSGIServer]:
    """A server class for the host's address family, IPv4 or IPv6."""
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    return type("MetricsServer", (ThreadingWSGIServer,), {"address_family": family})
