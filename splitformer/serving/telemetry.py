"""Metrics: the registry of one service, the gRPC layer's metrics, and the page they are read from.

Names follow go-grpc-prometheus at the gRPC layer and `splitformer_` elsewhere, in base units.
"""

from __future__ import annotations

import socket
import threading
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, Counter, Histogram, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

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
            "RPCs ended, by status code and reason.",
            (*labels, "grpc_code", "reason"),
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
