"""What the encoder service counts."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from splitformer.serving.counters import QuickCounter
from splitformer.serving.histograms import StepHistogram
from splitformer.serving.telemetry import LATENCY_BUCKETS

BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
TOKEN_BUCKETS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
FETCH_BUCKETS = (0, 1, 2, 3, 5, 10, 20, 50)
LEASE_ENDS = ("released", "expired")


class EncoderMetrics:
    """The encoder service's metrics in one registry.

    What the event loop alone counts takes no lock; engines, one for each model, share the others.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.sources = QuickCounter("splitformer_encoder_sources", "Sources encoded.", (), registry)
        self.source_tokens = QuickCounter(
            "splitformer_encoder_source_tokens", "Tokens of encoded sources.", (), registry
        )
        self.reused_sources = QuickCounter(
            "splitformer_encoder_reused_sources",
            "Sources whose memory the same caller still had kept, so that nothing was encoded.",
            (),
            registry,
        )
        self.queue_seconds = StepHistogram(
            "splitformer_encoder_queue_seconds",
            "Waiting for a place in a batch, per source.",
            LATENCY_BUCKETS,
            registry,
        )
        self.encode_seconds = StepHistogram(
            "splitformer_encoder_encode_seconds",
            "Running the encoder, per source's batch.",
            LATENCY_BUCKETS,
            registry,
        )
        self.tokenize_seconds = StepHistogram(
            "splitformer_encoder_tokenize_seconds",
            "Turning a source's text into tokens.",
            LATENCY_BUCKETS,
            registry,
        )
        self.batch_size = Histogram(
            "splitformer_encoder_batch_size",
            "Sources per batch.",
            buckets=BATCH_BUCKETS,
            registry=registry,
        )
        self.batch_tokens = Histogram(
            "splitformer_encoder_batch_tokens",
            "Tokens per batch, without padding.",
            buckets=TOKEN_BUCKETS,
            registry=registry,
        )
        self.padding_tokens = Counter(
            "splitformer_encoder_padding_tokens",
            "Positions computed for nothing, to fill up batches; the native kernels need none.",
            registry=registry,
        )
        self.queue_limit = Gauge(
            "splitformer_encoder_queue_limit",
            "Sources without an answer at most; more are refused.",
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
        self.memory_fetches = StepHistogram(
            "splitformer_encoder_memory_fetches",
            "How often a memory had been fetched when it went: its fan-out.",
            FETCH_BUCKETS,
            registry,
        )
        self.leases = Gauge("splitformer_encoder_leases", "Leases held.", registry=registry)
        self.lease_ends = QuickCounter(
            "splitformer_encoder_lease_ends", "Leases ended, by how.", ("how",), registry
        )
        self.sent_bytes = QuickCounter(
            "splitformer_encoder_memory_sent_bytes",
            "Bytes of memories sent, inline or in chunks.",
            (),
            registry,
        )
        self.shared_bytes = Counter(
            "splitformer_encoder_memory_shared_bytes",
            "Bytes of memories that decoders on this host were let map.",
            registry=registry,
        )
        for how in LEASE_ENDS:
            self.lease_ends.labels(how)
