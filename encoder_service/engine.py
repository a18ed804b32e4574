"""The encoder engine: many callers' sources, batched by length, on one thread of its own."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from encoder_service.metrics import EncoderMetrics
from splitformer import wire
from splitformer.errors import (
    InternalError,
    ResourceExhaustedError,
    SplitformerError,
    UnavailableError,
)
from splitformer.model.encoding import SourceEncoder

_RETRY_SECONDS = 0.5
_logger = logging.getLogger("splitformer.engine")


@dataclass(frozen=True, slots=True)
class Encoded:
    """A source's memory and where the time went.

    Attributes:
        memory: Packed bytes of the (S, D) matrix in the wire type.
        queue_seconds: Waiting for a place in a batch.
        encode_seconds: Running the encoder, for the whole batch.
    """

    memory: bytes
    queue_seconds: float
    encode_seconds: float


@dataclass(eq=False, slots=True)
class _Job:
    """One source on its way through the engine."""

    ids: Sequence[int]
    answer: asyncio.Future[Encoded]
    arrived: float = field(default_factory=time.perf_counter)


class EncoderEngine:
    """Schedules, runs and publishes batches.

    A batch is the source that has waited longest and those of nearest length, as many as fit into
    `max_batch_tokens` with padding; a source is never split from its answer.

    Args:
        encoder: The model's encoder.
        dtype: Wire type every memory is rounded to, once, here.
        max_batch_tokens: Rows times longest length of a batch, at most (one source always fits).
        max_queue: Sources waiting at most.
        metrics: Where to count.
    """

    def __init__(
        self,
        encoder: SourceEncoder,
        dtype: int,
        max_batch_tokens: int,
        max_queue: int,
        metrics: EncoderMetrics,
    ) -> None:
        self._encoder = encoder
        self._dtype = dtype
        self._max_batch_tokens = max_batch_tokens
        self._max_queue = max_queue
        self._metrics = metrics
        self._inbox: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._waiting: list[_Job] = []
        self._open = 0
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="encoder-engine", daemon=True)
        self._thread.start()

    @property
    def open(self) -> int:
        """Sources that have no answer yet."""
        return self._open

    async def encode(self, ids: Sequence[int]) -> Encoded:
        """Encode one source.

        Raises:
            ResourceExhaustedError: QUEUE_FULL.
            UnavailableError: DRAINING, the engine was closed.
            InternalError: The encoder failed.
        """
        if self._closed:
            raise UnavailableError.stopped()
        if self._open >= self._max_queue:
            raise ResourceExhaustedError(
                f"queue: holds {self._max_queue} sources at most and is full",
                reason="QUEUE_FULL",
                retry_after=_RETRY_SECONDS,
            )
        job = _Job(ids, self._loop.create_future())
        self._open += 1
        try:
            self._inbox.put(job)
            return await job.answer
        finally:
            self._open -= 1

    def close(self) -> None:
        """Stop the thread; sources without an answer get UNAVAILABLE."""
        self._closed = True
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        while self._receive():
            batch = self.schedule()
            if batch:
                self._run_batch(batch)
        self._loop.call_soon_threadsafe(_refuse, self._waiting, UnavailableError.stopped())

    def _run_batch(self, batch: list[_Job]) -> None:
        try:
            self.publish(batch, *self.encode_batch(batch))
            self._count([len(job.ids) for job in batch])
        except Exception:
            _logger.exception("a batch failed")
            error = InternalError("the encoder failed; the log has the details")
            self._loop.call_soon_threadsafe(_refuse, batch, error)

    def _count(self, lengths: list[int]) -> None:
        tokens = sum(lengths)
        self._metrics.batch_size.observe(len(lengths))
        self._metrics.batch_tokens.observe(tokens)
        if self._encoder.padded:
            self._metrics.padding_tokens.inc(len(lengths) * max(lengths) - tokens)

    def _receive(self) -> bool:
        """Take in what has arrived, waiting if there is nothing to do; False when closing."""
        block = not self._waiting
        while True:
            try:
                job = self._inbox.get(block)
            except queue.Empty:
                return True
            if job is None:
                return False
            self._waiting.append(job)
            block = False

    def schedule(self) -> list[_Job]:
        """Take the next batch out of the waiting jobs; jobs whose caller has gone are dropped."""
        self._waiting = [job for job in self._waiting if not job.answer.cancelled()]
        if not self._waiting:
            return []
        oldest = self._waiting[0]
        batch: list[_Job] = []
        longest = 0
        for job in sorted(self._waiting, key=lambda j: abs(len(j.ids) - len(oldest.ids))):
            longest = max(longest, len(job.ids))
            if batch and longest * (len(batch) + 1) > self._max_batch_tokens:
                break
            batch.append(job)
        taken = set(map(id, batch))
        self._waiting = [job for job in self._waiting if id(job) not in taken]
        return batch

    def encode_batch(self, batch: list[_Job]) -> tuple[list[bytes], float, float]:
        """Run a batch; return its packed memories and when it started and ended."""
        started = time.perf_counter()
        memories = self._encoder.encode([job.ids for job in batch])
        packed = [wire.pack(memory, self._dtype) for memory in memories]
        return packed, started, time.perf_counter()

    def publish(
        self, batch: list[_Job], memories: list[bytes], started: float, ended: float
    ) -> None:
        """Hand the answers to the event loop, in one call."""
        answers = [
            (job.answer, Encoded(memory, started - job.arrived, ended - started))
            for job, memory in zip(batch, memories, strict=True)
        ]
        self._loop.call_soon_threadsafe(_deliver, answers)


def _deliver(answers: list[tuple[asyncio.Future[Encoded], Encoded]]) -> None:
    for future, encoded in answers:
        if not future.done():
            future.set_result(encoded)


def _refuse(jobs: list[_Job], error: SplitformerError) -> None:
    for job in jobs:
        if not job.answer.done():
            job.answer.set_exception(error)
