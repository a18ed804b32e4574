"""The encoder engine: many callers' sources, batched by length, on one thread of its own."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from encoder_service.metrics import EncoderMetrics
from encoder_service.segments import Segment, Segments
from splitformer import wire
from splitformer.errors import (
    InternalError,
    ResourceExhaustedError,
    SplitformerError,
    UnavailableError,
)
from splitformer.model.encoding import Source, SourceEncoder
from splitformer.serving import packing

_RETRY_SECONDS = 0.5
_FADING = 0.8
"""Weight of what was measured before, against the last batch."""

_logger = logging.getLogger("splitformer.engine")


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine takes on.

    Attributes:
        batch_tokens: Tokens per batch at most, padding included; one source always fits.
        queue: Sources without an answer at most.
        queue_seconds: Longest wait that a new source may expect.
        window_seconds: How long a small batch waits for company while the engine is busy.
    """

    batch_tokens: int
    queue: int
    queue_seconds: float
    window_seconds: float


@dataclass(frozen=True, slots=True)
class Encoded:
    """A source's memory and where the time went.

    Attributes:
        memory: Packed bytes of the (S, D) matrix in the wire type; can be shared if it is to be
            kept.
        queue_seconds: Waiting for a place in a batch.
        encode_seconds: Running the encoder, for the whole batch.
    """

    memory: Segment
    queue_seconds: float
    encode_seconds: float


@dataclass(eq=False, slots=True)
class _Job:
    """One source on its way through the engine."""

    source: Source
    bulk: bool
    keep: bool
    answer: asyncio.Future[Encoded]
    arrived: float = field(default_factory=time.perf_counter)


class EncoderEngine:
    """Schedules, runs and publishes batches.

    An idle engine begins at once. While it is busy, what arrives makes the next batches, and a
    small one waits a moment for company. A batch is no larger than makes it cheaper per token: the
    first memories of many sources are there early, and the last no later. Single sources go before
    those of bulk jobs, of which at least one goes with each batch. A source whose caller has gone
    is never encoded.

    Args:
        encoder: The model's encoder.
        dtype: Wire type every memory is rounded to, once, here.
        limits: What to take on.
        metrics: Where to count.
        segments: Makes room for memories that are to be kept.
        settle: What the engine's thread does first.
        prioritise: Called before each batch with whether somebody waits for a source in it: one
            that is not of a bulk job.
    """

    def __init__(
        self,
        encoder: SourceEncoder,
        dtype: int,
        limits: Limits,
        metrics: EncoderMetrics,
        segments: Segments,
        settle: Callable[[], None] = lambda: None,
        prioritise: Callable[[bool], None] = lambda waited_for: None,
    ) -> None:
        self._encoder = encoder
        self._dtype = dtype
        self._limits = limits
        self._metrics = metrics
        self._segments = segments
        self._settle = settle
        self._prioritise = prioritise
        self._inbox: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._waiting: list[_Job] = []
        self._open = 0
        self._open_tokens = 0
        self._seconds, self._tokens = 0.0, 0.0  # of past batches, fading
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="encoder-engine", daemon=True)
        self._thread.start()

    @property
    def open(self) -> int:
        """Sources that have no answer yet."""
        return self._open

    @property
    def expected_wait(self) -> float:
        """Seconds that what is open will take, going by the last batches."""
        return self._open_tokens * self._seconds / self._tokens if self._tokens else 0.0

    async def encode(self, source: Source, bulk: bool = False, keep: bool = False) -> Encoded:
        """Encode one source.

        Args:
            source: Its tokens or features, of length 1 at least.
            bulk: Let single sources go first.
            keep: The memory is to be kept for others, not to be sent now.

        Raises:
            ResourceExhaustedError: QUEUE_FULL.
            UnavailableError: DRAINING, the engine was closed.
            InternalError: The encoder failed.
        """
        if self._closed:
            raise UnavailableError.stopped()
        self._check_room()
        job = _Job(source, bulk, keep, self._loop.create_future())
        self._open += 1
        self._open_tokens += len(source)
        try:
            self._inbox.put(job)
            return await job.answer
        finally:
            self._open -= 1
            self._open_tokens -= len(source)

    def _check_room(self) -> None:
        limits, wait = self._limits, self.expected_wait
        if self._open >= limits.queue:
            why = f"holds {limits.queue} sources at most and is full"
        elif wait > limits.queue_seconds:
            why = f"may take {limits.queue_seconds:g} s at most, {wait:.1f} s of work are waiting"
        else:
            return
        raise ResourceExhaustedError(
            f"queue: {why}",
            reason="QUEUE_FULL",
            retry_after=max(_RETRY_SECONDS, wait - limits.queue_seconds),
        )

    def close(self) -> None:
        """Stop the thread; sources without an answer get UNAVAILABLE."""
        self._closed = True
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        self._settle()
        while self._receive():
            batch = self.schedule()
            if batch:
                self._prioritise(not all(job.bulk for job in batch))
                self._run_batch(batch)
        self._loop.call_soon_threadsafe(_refuse, self._waiting, UnavailableError.stopped())

    def _run_batch(self, batch: list[_Job]) -> None:
        try:
            memories, started, ended = self.encode_batch(batch)
        except Exception:
            _logger.exception("a batch failed")
            error = InternalError("the encoder failed; the log has the details")
            self._loop.call_soon_threadsafe(_refuse, batch, error)
            return
        self._seconds = _FADING * self._seconds + ended - started
        self._tokens = _FADING * self._tokens + _tokens(batch)
        self.publish(batch, memories, started, ended)
        self._count([len(job.source) for job in batch])

    def _count(self, lengths: list[int]) -> None:
        tokens = sum(lengths)
        self._metrics.batch_size.observe(len(lengths))
        self._metrics.batch_tokens.observe(tokens)
        if self._encoder.padded:
            self._metrics.padding_tokens.inc(len(lengths) * max(lengths) - tokens)

    def _receive(self) -> bool:
        """Take in what has arrived, waiting if there is nothing to do; False when closing."""
        idle = not self._waiting and self._inbox.empty()
        window = self._limits.window_seconds if self._tokens and not idle else 0.0
        until = time.perf_counter() + window
        tokens = _tokens(self._waiting)
        full = self._encoder.full_tokens
        seconds = None if idle else window * (tokens < full)
        while True:
            try:
                job = self._inbox.get(timeout=seconds)
            except queue.Empty:
                return True
            if job is None:
                return False
            self._waiting.append(job)
            tokens += len(job.source)
            seconds = max(0.0, until - time.perf_counter()) if tokens < full else 0.0

    def schedule(self) -> list[_Job]:
        """Take the next batch out of the waiting jobs; jobs whose caller has gone are dropped."""
        self._waiting = [job for job in self._waiting if not job.answer.cancelled()]
        batch: list[_Job] = []
        longest = tokens = before = 0
        for job in self._in_turn():
            longest, tokens = max(longest, len(job.source)), tokens + len(job.source)
            rows = longest * (len(batch) + 1) if self._encoder.padded else tokens
            enough = before >= self._encoder.full_tokens and not (len(batch) == 1 and job.bulk)
            if batch and (enough or rows > self._limits.batch_tokens):
                break
            batch.append(job)
            before = rows
        taken = set(map(id, batch))
        self._waiting = [job for job in self._waiting if id(job) not in taken]
        return batch

    def _in_turn(self) -> list[_Job]:
        """The waiting jobs in the order in which they get places.

        First single ones, then bulk, except that the first of bulk comes second. Where padding
        costs, those of nearest length to the first follow it.
        """
        jobs = sorted(self._waiting, key=lambda job: job.bulk)  # stable: by arrival otherwise
        first_bulk = next((job for job in jobs if job.bulk), None)
        if first_bulk is not None and jobs[0] is not first_bulk:
            jobs.remove(first_bulk)
            jobs.insert(1, first_bulk)
        if self._encoder.padded and jobs:
            length = len(jobs[0].source)
            jobs.sort(key=lambda job: abs(len(job.source) - length))
        return jobs

    def encode_batch(self, batch: list[_Job]) -> tuple[list[Segment], float, float]:
        """Run a batch; return its packed memories and when it started and ended."""
        started = time.perf_counter()
        memories = self._encoder.encode([job.source for job in batch])
        packed = [self._pack(job, memory) for job, memory in zip(batch, memories, strict=True)]
        return packed, started, time.perf_counter()

    def _pack(self, job: _Job, memory: wire.FloatArray) -> Segment:
        """Round a memory, once, into the only buffer that it has on this side."""
        if not job.keep:
            return Segment(packing.pack(memory, self._dtype))
        size = wire.packed_bytes(self._dtype, memory.shape)
        return self._segments.make(size, lambda room: packing.pack_into(memory, self._dtype, room))

    def publish(
        self, batch: list[_Job], memories: list[Segment], started: float, ended: float
    ) -> None:
        """Hand the answers to the event loop, in one call."""
        answers = [
            (job.answer, Encoded(memory, started - job.arrived, ended - started))
            for job, memory in zip(batch, memories, strict=True)
        ]
        self._loop.call_soon_threadsafe(_deliver, answers)


def _tokens(jobs: Sequence[_Job]) -> int:
    return sum(len(job.source) for job in jobs)


def _deliver(answers: list[tuple[asyncio.Future[Encoded], Encoded]]) -> None:
    for future, encoded in answers:
        if not future.done():
            future.set_result(encoded)


def _refuse(jobs: list[_Job], error: SplitformerError) -> None:
    for job in jobs:
        if not job.answer.done():
            job.answer.set_exception(error)
