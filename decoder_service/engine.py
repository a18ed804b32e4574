"""The decode engine: every running generation advances with each step.

Its heart is three verbs, on a thread of its own: schedule (who takes part), step (one pass through
the decoder), publish (one hand-over to the event loop). Generations join and leave between any two
steps; nobody else's keys and values are touched when they do.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from decoder_service.errands import Errand, Runner
from decoder_service.generation import Event, Generation, deliver, goes_on
from decoder_service.metrics import DecoderMetrics
from splitformer.errors import InternalError, NotFoundError, SplitformerError, UnavailableError
from splitformer.generation import Failures, likeliest_of, step
from splitformer.model.cache import DecoderState
from splitformer.model.stepping import StepDecoder
from splitformer.wire import FloatArray

R = TypeVar("R")
_logger = logging.getLogger("splitformer.engine")


class DecoderEngine:
    """Runs all generations of one decoder.

    Args:
        decoder: The model's decoder.
        never: Ids that no target may contain.
        max_batch: Most sequences per step; beyond it generations take turns.
        metrics: Where to count.
        settle: What the engine's thread does first.
    """

    def __init__(
        self,
        decoder: StepDecoder,
        never: tuple[int, ...],
        max_batch: int,
        metrics: DecoderMetrics,
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        self._decoder = decoder
        self._never = never
        self._max_batch = max_batch
        self._metrics = metrics
        self._settle = settle
        self._running: list[Generation] = []
        self._closing = False
        self._closed = False
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._openings: deque[Callable[[], None]] = deque()
        self._projector = Runner("decoder-projector")
        self._unprepared = 0
        self._step_seconds = 0.0
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="decoder-engine", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """Generations in the loop."""
        return len(self._running)

    @property
    def paused(self) -> int:
        """Generations in the loop whose reader is too far behind."""
        return sum(generation.paused for generation in list(self._running))

    @property
    def queued(self) -> int:
        """Generations without their first step, and openings without their keys and values."""
        return sum(not generation.steps for generation in list(self._running)) + self._unprepared

    def begin(self, memory: FloatArray) -> asyncio.Future[DecoderState]:
        """Project a memory (S, D) into keys and values: beside the steps if possible."""
        prepare = self._beside if self._decoder.begins_beside else self._call
        return prepare(lambda: self._decoder.begin(memory))

    def likeliest_of(
        self, state: DecoderState, token: int, among: Sequence[int]
    ) -> asyncio.Future[int]:
        """Feed a state its first token; give the likeliest of some ids to come next."""
        return self._call(lambda: likeliest_of(self._decoder, state, token, among))

    def fork(self, state: DecoderState) -> asyncio.Future[DecoderState]:
        """Copy a state that no generation is using."""
        return self._call(state.fork)

    def join(self, generation: Generation) -> None:
        """Let a generation take part from the next step on; UnavailableError DRAINING if closed."""
        self._check_open()
        self._inbox.put(lambda: self._running.append(generation))

    def wake(self) -> None:
        """Look again who can go on; a paused reader has caught up."""
        self._inbox.put(lambda: None)

    def leave(self, generation: Generation) -> None:
        """Take a generation out; its `left` is set once the engine has let go of the target."""
        generation.leaving = True
        self._inbox.put(lambda: self._remove(generation))

    async def withdraw(self, generation: Generation) -> None:
        """Take a generation out for another one to follow: its session stays taken."""
        self._inbox.put(lambda: self._remove(generation))
        await asyncio.wait([generation.left])

    def expel(self, generation: Generation) -> None:
        """End a generation whose session is being closed; its reader gets NOT_FOUND."""
        gone = NotFoundError("session_id: was closed meanwhile", reason="SESSION_NOT_FOUND")
        self._inbox.put(lambda: self._fail([generation], gone))

    def close(self) -> None:
        """Stop the thread; generations still running get UNAVAILABLE."""
        self._closed = True
        self._inbox.put(self._stop)
        self._thread.join()
        self._projector.close()

    def _run(self) -> None:
        self._settle()
        while not self._closing:
            batch = self.schedule()
            if batch:
                self.publish(self.step(batch))
            self._obey(block=not batch and not self._openings)
            self._open_some()
        while self._openings:
            self._openings.popleft()()

    def schedule(self) -> list[Generation]:
        """Choose who takes part in the next step; those left out come first the next time."""
        able = [generation for generation in self._running if not generation.paused]
        batch = _fitting(able, self._max_batch)
        if len(able) > len(batch):
            chosen = set(map(id, batch))
            rest = [generation for generation in self._running if id(generation) not in chosen]
            self._running = rest + batch
        return batch

    def step(self, batch: list[Generation]) -> list[Generation]:
        """Advance the batch by one step; return whom it has not failed."""
        active = [generation for generation in batch if not generation.decoding.finished]
        started = time.perf_counter()
        failures = step(self._decoder, [g.decoding for g in active], self._never) if active else []
        self._count(active, started)
        return self._sound(batch, failures) if failures else batch

    def publish(self, batch: list[Generation]) -> None:
        """Hand the batch's news to the event loop, in one call; who has ended leaves."""
        news = [(generation, generation.news()) for generation in batch]
        ended = {id(generation) for generation, events in news if not goes_on(events)}
        if ended:
            self._running = [g for g in self._running if id(g) not in ended]
        self._loop.call_soon_threadsafe(deliver, news)

    def _sound(self, batch: list[Generation], failures: Failures) -> list[Generation]:
        """Tell those that failed; return the others."""
        failed = {id(decoding) for decoding, _ in failures}
        for _, error in failures:
            _logger.error("a step failed", exc_info=error)
        told = InternalError("the step failed; the log has the details")
        self._fail([g for g in batch if id(g.decoding) in failed], told)
        return [g for g in batch if id(g.decoding) not in failed]

    def _count(self, active: list[Generation], started: float) -> None:
        now = time.perf_counter()
        self._step_seconds = now - started
        gaps: dict[float, int] = {}
        for generation in active:
            if generation.steps:
                gaps[generation.last_step] = gaps.get(generation.last_step, 0) + 1
            else:
                generation.first_step = started
            generation.last_step = now
            generation.steps += 1
        for last_step, times in gaps.items():
            self._metrics.inter_token_seconds.observe(now - last_step, times)
        if active:
            self._metrics.steps.inc()
            self._metrics.batch_size.observe(len(active))
            self._metrics.step_seconds.observe(self._step_seconds)

    def _obey(self, block: bool) -> None:
        while True:
            try:
                command = self._inbox.get(block)
            except queue.Empty:
                return
            command()
            block = False

    def _open_some(self) -> None:
        """Prepare new sessions for as long as a step takes: no longer shall the running wait."""
        until = time.perf_counter() + self._step_seconds
        while self._openings:
            self._openings.popleft()()
            if time.perf_counter() >= until:
                return

    def _beside(self, function: Callable[[], R]) -> asyncio.Future[R]:
        """Run a function while the engine takes steps."""
        errand = self._errand(function)
        self._projector.run(errand)
        return errand.answer

    def _call(self, function: Callable[[], R]) -> asyncio.Future[R]:
        """Run a function between two steps."""
        errand = self._errand(function)
        self._inbox.put(lambda: self._openings.append(errand.run))
        return errand.answer

    def _errand(self, function: Callable[[], R]) -> Errand[R]:
        self._check_open()
        errand = Errand(function)
        self._unprepared += 1
        errand.answer.add_done_callback(self._prepared)
        return errand

    def _prepared(self, _: object) -> None:
        self._unprepared -= 1

    def _remove(self, generation: Generation) -> None:
        self._running = [g for g in self._running if g is not generation]
        self._loop.call_soon_threadsafe(generation.has_left)

    def _fail(self, batch: list[Generation], error: SplitformerError) -> None:
        failed = set(map(id, batch))
        self._running = [g for g in self._running if id(g) not in failed]
        news: Sequence[tuple[Generation, Sequence[Event]]] = [(g, [error]) for g in batch]
        self._loop.call_soon_threadsafe(deliver, news)

    def _stop(self) -> None:
        self._closing = True
        self._fail(self._running, UnavailableError.stopped())

    def _check_open(self) -> None:
        if self._closed:
            raise UnavailableError.stopped()


def _fitting(able: list[Generation], most: int) -> list[Generation]:
    """Return the first generations that make up at most `most` sequences; at least one."""
    room = most
    for count, generation in enumerate(able):
        room -= generation.decoding.width
        if room < 0 and count:
            return able[:count]
    return able
