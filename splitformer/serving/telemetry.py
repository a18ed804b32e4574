"""Metrics: the registry of one service and the gRPC layer's metrics.

Names follow go-grpc-prometheus at the gRPC layer and `splitformer_` elsewhere, in base units.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from google.protobuf import descriptor_pool
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from splitformer.errors import Code
from splitformer.serving.counters import Tally
from splitformer.serving.metric_set import MetricSet
from splitformer.serving.reasons import REASONS

LATENCY_BUCKETS = (
    *(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0),
)
"""Seconds, in 1-2-5 steps; for requests and their parts."""

FIRST_TOKEN_BUCKETS = LATENCY_BUCKETS[2:]
"""Seconds; for the time to the first token."""

INTER_TOKEN_BUCKETS = (*LATENCY_BUCKETS[:12], 5.0)
"""Seconds; for the time between two tokens."""


class Telemetry(MetricSet):
    """The registry of one service and what the gRPC layer counts in it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        super().__init__("", self.registry)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        method = ("grpc_service", "grpc_method")
        self.started = self._quick_counter("grpc_server_started", "RPCs started.", *method)
        self.handled = self._quick_counter(
            "grpc_server_handled", "RPCs that ended, by status code.", *method, "grpc_code"
        )
        self.received = self._quick_counter(
            "grpc_server_msg_received", "Messages received.", *method
        )
        self.sent = self._quick_counter("grpc_server_msg_sent", "Messages sent.", *method)
        self.handling_seconds = self._histogram(
            "grpc_server_handling_seconds", "Duration of RPCs.", LATENCY_BUCKETS, *method
        )
        self.failures = self._counter(
            "splitformer_failures",
            "RPCs that ended with an error, by status code and reason.",
            *("grpc_code", "reason"),
        )
        self.in_flight = self._gauge("splitformer_in_flight", "RPCs running.")
        self.serving = self._gauge(
            "splitformer_serving", "1 from the end of warm-up until shutdown begins, otherwise 0."
        )
        self.info = self._gauge(
            "splitformer_model_info",
            "Always 1; the labels say which model is served, and how.",
            *("model", "precision", "numerics", "version"),
        )
        self.model_bytes = self._gauge(
            "splitformer_model_bytes", "Size of a loaded model's weights.", "model"
        )
        self.model_requests = self._quick_counter(
            "splitformer_model_requests",
            "Sources encoded with a model, or sessions opened for it.",
            "model",
        )
        self.certificate_expiry = self._gauge(
            "splitformer_tls_certificate_expiry_timestamp_seconds",
            "When the server's certificate expires, in seconds since 1970; 0 without TLS.",
        )
        for code, reason in REASONS:
            self.failures.labels(code, reason)

    def expect(self, services: Iterable[str]) -> None:
        """Let all series of our services exist, at 0, so that the first event is an increase."""
        for service in services:
            for method in descriptor_pool.Default().FindServiceByName(service).methods:
                for metric in (self.started, self.received, self.sent):
                    metric.labels(service, method.name)
                self.handling_seconds.labels(service, method.name)
                for code in Code:
                    self.handled.labels(service, method.name, code.name)

    def of_method(self, service: str, method: str) -> MethodSeries:
        """Return the series of one method, so that nobody looks them up for each call."""
        return MethodSeries(
            self.started.labels(service, method),
            self.received.labels(service, method),
            self.sent.labels(service, method),
            self.handling_seconds.labels(service, method),
            {code: self.handled.labels(service, method, code.name) for code in Code},
            self.failures,
        )


@dataclass(frozen=True, slots=True)
class MethodSeries:
    """What the gRPC layer counts of one method."""

    started: Tally
    received: Tally
    sent: Tally
    handling_seconds: Histogram
    handled: Mapping[Code, Tally]
    failures: Counter

    def ended(self, code: Code, reason: str, seconds: float) -> None:
        """Count an RPC that has ended."""
        self.handling_seconds.observe(seconds)
        self.handled[code].inc()
        if code is not Code.OK:
            self.failures.labels(code.name, reason or code.name).inc()
