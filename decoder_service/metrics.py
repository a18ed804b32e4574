"""What the decoder service counts."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from splitformer.generation import DraftMode
from splitformer.serving.counters import QuickCounter
from splitformer.serving.histograms import StepHistogram
from splitformer.serving.telemetry import (
    FIRST_TOKEN_BUCKETS,
    INTER_TOKEN_BUCKETS,
    LATENCY_BUCKETS,
)

TRANSFER_ROUTES = ("upload", "reference")
MEMORY_ROUTES = (*TRANSFER_ROUTES, "fork")
MEMORY_PATHS = ("upload", "chunks", "shared")
FALLBACKS = ("gone", "another_user", "unknown_memory", "unusable")
SESSION_ENDS = ("closed", "ended", "expired", "failed")
GENERATION_ENDS = ("eos", "length", "stop", "cancelled", "failed")
DRAFTS = ("copy", "jacobi")
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)


class DecoderMetrics:
    """The decoder service's metrics in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.sessions = self._gauge("sessions", "Sessions open.")
        self.running = self._gauge("running", "Generations in the loop.")
        self.paused = self._gauge("paused", "Generations waiting for a slow reader.")
        self.queued = self._gauge("queued", "Generations and openings without a turn yet.")
        self.slots = self._gauge("slots", "Sequences per step at most.")
        self.memory_bytes = self._gauge("memory_bytes", "Bytes reserved for sessions.")
        self.memory_budget_bytes = self._gauge("memory_budget_bytes", "Budget for sessions.")
        self.opened = self._quick_counter("sessions_opened", "Sessions opened, by route.", "route")
        self.closed = self._quick_counter("sessions_closed", "Sessions let go, by how.", "how")
        self.ends = self._quick_counter("generations", "Generations ended, by how.", "how")
        self.tokens = self._quick_counter("tokens", "Tokens produced.")
        self.steps = self._counter("steps", "Steps of the engine.")
        self.drafted = self._counter("drafted_tokens", "Tokens guessed, by mode.", "draft")
        self.accepted = self._counter(
            "accepted_tokens", "Guessed tokens that the model agreed with, by mode.", "draft"
        )
        self._drafts: dict[DraftMode, list[Counter]] = {}
        self.received_bytes = self._counter(
            "memory_received_bytes", "Memory bytes received or mapped."
        )
        self.transfers = self._quick_counter(
            "memory_transfers",
            "Memories that came, by path: uploaded, fetched in chunks, or mapped on this host.",
            "path",
        )
        self.fallbacks = self._counter(
            "shared_memory_fallbacks",
            "Memories that were fetched although their encoder is on this host, by reason.",
            "why",
        )
        self.batch_size = self._histogram("batch_size", "Sequences per step.", BATCH_BUCKETS)
        self.step_seconds = self._histogram(
            "step_seconds", "One step of the engine, all its sequences.", LATENCY_BUCKETS
        )
        self.queue_seconds = self._histogram(
            "queue_seconds", "From a generation's start to its first step.", LATENCY_BUCKETS
        )
        self.transfer_seconds = Histogram(
            "splitformer_decoder_transfer_seconds",
            "Pulling a memory from its encoder, or receiving an upload.",
            ["route"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.project_seconds = self._histogram(
            "project_seconds", "Projecting a memory, waiting included.", LATENCY_BUCKETS
        )
        self.first_token_seconds = self._histogram(
            "time_to_first_token_seconds",
            "From a generation's start to its first token.",
            FIRST_TOKEN_BUCKETS,
        )
        self.inter_token_seconds = self._histogram(
            "inter_token_seconds", "Between two tokens of a generation.", INTER_TOKEN_BUCKETS
        )
        expected: tuple[tuple[Counter | QuickCounter, Sequence[str]], ...] = (
            (self.opened, MEMORY_ROUTES),
            (self.transfers, MEMORY_PATHS),
            (self.fallbacks, FALLBACKS),
            (self.closed, SESSION_ENDS),
            (self.ends, GENERATION_ENDS),
            (self.drafted, DRAFTS),
            (self.accepted, DRAFTS),
        )
        for counter, values in expected:
            for value in values:
                counter.labels(value)
        for route in TRANSFER_ROUTES:
            self.transfer_seconds.labels(route)

    def count_draft(self, mode: DraftMode, drafted: int, accepted: int) -> None:
        """Count a draft's tokens; called by the engine, after each step that had one."""
        if mode not in self._drafts:
            each = (self.drafted, self.accepted)
            self._drafts[mode] = [counter.labels(mode.value) for counter in each]
        for counter, count in zip(self._drafts[mode], (drafted, accepted), strict=True):
            counter.inc(count)

    def _gauge(self, name: str, explanation: str) -> Gauge:
        return Gauge(f"splitformer_decoder_{name}", explanation, registry=self._registry)

    def _counter(self, name: str, explanation: str, *labels: str) -> Counter:
        return Counter(f"splitformer_decoder_{name}", explanation, labels, registry=self._registry)

    def _quick_counter(self, name: str, explanation: str, *labels: str) -> QuickCounter:
        """A counter that the event loop alone counts."""
        return QuickCounter(f"splitformer_decoder_{name}", explanation, labels, self._registry)

    def _histogram(self, name: str, explanation: str, buckets: tuple[float, ...]) -> StepHistogram:
        return StepHistogram(
            f"splitformer_decoder_{name}", explanation, buckets, registry=self._registry
        )
