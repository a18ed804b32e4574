"""What the encoder service counts."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from splitformer.serving.metric_set import MetricSet
from splitformer.serving.telemetry import LATENCY_BUCKETS

BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
TOKEN_BUCKETS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
FETCH_BUCKETS = (0, 1, 2, 3, 5, 10, 20, 50)
LEASE_ENDS = ("released", "expired")


class EncoderMetrics(MetricSet):
    """The encoder service's metrics in one registry.

    What only the event loop counts takes no lock; the engines, one per model, share the others.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__("splitformer_encoder_", registry)
        self.sources = self._quick_counter("sources", "Sources encoded.")
        self.source_tokens = self._quick_counter("source_tokens", "Tokens of encoded sources.")
        self.reused_sources = self._quick_counter(
            "reused_sources",
            "Sources not encoded again because the same caller still held their memory.",
        )
        self.queue_seconds = self._step_histogram(
            "queue_seconds", "Waiting for a place in a batch, per source.", LATENCY_BUCKETS
        )
        self.encode_seconds = self._step_histogram(
            "encode_seconds",
            "Running the encoder on a source's batch, per source.",
            LATENCY_BUCKETS,
        )
        self.tokenize_seconds = self._step_histogram(
            "tokenize_seconds", "Turning a source's text into tokens.", LATENCY_BUCKETS
        )
        self.batch_size = self._histogram("batch_size", "Sources per batch.", BATCH_BUCKETS)
        self.batch_tokens = self._histogram(
            "batch_tokens", "Tokens per batch, without padding.", TOKEN_BUCKETS
        )
        self.padding_tokens = self._counter(
            "padding_tokens", "Positions computed only to pad batches; native kernels need none."
        )
        self.queue_limit = self._gauge(
            "queue_limit", "Most sources without an answer; more are refused."
        )
        self.open_sources = self._gauge("open_sources", "Sources without an answer yet.")
        self.memory_bytes = self._gauge("memory_bytes", "Memories kept under leases, in bytes.")
        self.memory_budget_bytes = self._gauge("memory_budget_bytes", "Budget for memories.")
        self.memories = self._gauge("memories", "Memories kept.")
        self.memory_fetches = self._step_histogram(
            "memory_fetches",
            "How often a memory was fetched before it was freed: its fan-out.",
            FETCH_BUCKETS,
        )
        self.leases = self._gauge("leases", "Leases held.")
        self.lease_ends = self._quick_counter("lease_ends", "Leases that ended, by cause.", "how")
        self.sent_bytes = self._quick_counter(
            "memory_sent_bytes", "Bytes of memories sent, inline or in chunks."
        )
        self.shared_bytes = self._counter(
            "memory_shared_bytes", "Bytes of memories handed to decoders on this host to map."
        )
        for how in LEASE_ENDS:
            self.lease_ends.labels(how)
