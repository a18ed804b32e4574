"""What the decoder service counts."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter

from splitformer.generation import DraftMode
from splitformer.serving.counters import QuickCounter
from splitformer.serving.metric_set import MetricSet
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


class DecoderMetrics(MetricSet):
    """The decoder service's metrics in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__("splitformer_decoder_", registry)
        self.sessions = self._gauge("sessions", "Sessions open.")
        self.running = self._gauge("running", "Generations in the loop.")
        self.paused = self._gauge("paused", "Generations waiting for a slow reader.")
        self.queued = self._gauge(
            "queued", "Generations and openings that have not had a turn yet."
        )
        self.slots = self._gauge("slots", "Most sequences per step.")
        self.memory_bytes = self._gauge("memory_bytes", "Bytes reserved for sessions.")
        self.memory_budget_bytes = self._gauge("memory_budget_bytes", "Budget for sessions.")
        self.opened = self._quick_counter("sessions_opened", "Sessions opened, by route.", "route")
        self.closed = self._quick_counter("sessions_closed", "Sessions closed, by cause.", "how")
        self.ends = self._quick_counter("generations", "Generations that ended, by cause.", "how")
        self.tokens = self._quick_counter("tokens", "Tokens produced.")
        self.steps = self._counter("steps", "Steps of the engine.")
        self.drafted = self._quick_counter("drafted_tokens", "Tokens guessed, by mode.", "draft")
        self.accepted = self._quick_counter(
            "accepted_tokens", "Guessed tokens that were accepted, by mode.", "draft"
        )
        self.received_bytes = self._counter(
            "memory_received_bytes", "Bytes of memories received or mapped."
        )
        self.transfers = self._quick_counter(
            "memory_transfers",
            "Memories received, by path: uploaded, fetched in chunks, or mapped on this host.",
            "path",
        )
        self.fallbacks = self._counter(
            "shared_memory_fallbacks",
            "Memories fetched although their encoder is on this host, by reason.",
            "why",
        )
        self.batch_size = self._step_histogram("batch_size", "Sequences per step.", BATCH_BUCKETS)
        self.step_seconds = self._step_histogram(
            "step_seconds", "One step of the engine, with all its sequences.", LATENCY_BUCKETS
        )
        self.queue_seconds = self._step_histogram(
            "queue_seconds", "From a generation's start to its first step.", LATENCY_BUCKETS
        )
        self.transfer_seconds = self._histogram(
            "transfer_seconds",
            "Pulling a memory from its encoder, or receiving an upload.",
            LATENCY_BUCKETS,
            "route",
        )
        self.project_seconds = self._step_histogram(
            "project_seconds", "Projecting a memory, including waiting.", LATENCY_BUCKETS
        )
        self.first_token_seconds = self._step_histogram(
            "time_to_first_token_seconds",
            "From a generation's start to its first token.",
            FIRST_TOKEN_BUCKETS,
        )
        self.inter_token_seconds = self._step_histogram(
            "inter_token_seconds", "Between two tokens of a generation.", INTER_TOKEN_BUCKETS
        )
        self._expect()

    def count_drafts(self, mode: DraftMode, drafted: int, accepted: int) -> None:
        """Count the tokens that a run has guessed, once it is over."""
        self.drafted.labels(mode.value).inc(drafted)
        self.accepted.labels(mode.value).inc(accepted)

    def _expect(self) -> None:
        """Let all series exist, at 0, so that the first event is an increase."""
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
