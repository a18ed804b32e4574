"""What the encoder service counts."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from splitformer.serving.telemetry import LATENCY_BUCKETS

LEASE_ENDS = ("released", "expired")


class EncoderMetrics:
    """The encoder service's metrics in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.sources = Counter("splitformer_encoder_sources", "Sources encoded.", registry=registry)
        self.source_tokens = Counter(
            "splitformer_encoder_source_tokens", "Tokens of encoded sources.", registry=registry
        )
        self.queue_seconds = Histogram(
            "splitformer_encoder_queue_seconds",
            "Waiting for a place in a batch, per source.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.encode_seconds = Histogram(
            "splitformer_encoder_encode_seconds",
            "Running the encoder, per source's batch.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.open_sources = Gauge(
            "splitformer_encoder_open_sources", "Sources without an answer yet.", registry=registry
        )
        self.memory_bytes = Gauge(
            "splitformer_encoder_memory_bytes", "Memories kept under leases.", registry=registry
        )
        self.memory_budget_bytes = Gauge(
            "splitformer_encoder_memory_budget_bytes", "Budget for memories.", registry=registry
        )
        self.memories = Gauge("splitformer_encoder_memories", "Memories kept.", registry=registry)
        self.leases = Gauge("splitformer_encoder_leases", "Leases held.", registry=registry)
        self.lease_ends = Counter(
            "splitformer_encoder_lease_ends", "Leases ended, by how.", ["how"], registry=registry
        )
        self.sent_bytes = Counter(
            "splitformer_encoder_memory_sent_bytes",
            "Bytes of memories sent, inline or in chunks.",
            registry=registry,
        )
        for how in LEASE_ENDS:
            self.lease_ends.labels(how)
