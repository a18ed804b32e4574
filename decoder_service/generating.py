"""The reading side of the loop: what one Generate or Step does with a session.

A generation that ends, is cancelled or breaks leaves the engine's batch at once; the session keeps
its tokens, keys and values, so that it can be resumed.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager

from decoder_service.answers import Ended, IndexedToken, Yielded
from decoder_service.budget import Reservation
from decoder_service.engine import DecoderEngine
from decoder_service.generation import Generation
from decoder_service.metrics import DecoderMetrics
from decoder_service.recalling import (
    batches,
    check_forced,
    checked_start,
    cut,
    remembered,
    replay,
    seed_of,
)
from decoder_service.sessions import Session, Sessions
from splitformer import tracing
from splitformer.errors import (
    FailedPreconditionError,
    NotFoundError,
    SplitformerError,
)
from splitformer.generation import (
    Drafting,
    EndReason,
    GenerationOptions,
    Glossary,
    Vocabulary,
    decoding_for,
    drafts_of,
    kept_bytes,
    most_bytes,
)
from splitformer.model.defaults import Defaults


class Generating:
    """Runs calls on sessions.

    Args:
        engine: Where the steps are computed.
        sessions: Where sessions and records are found.
        metrics: Where to count.
        window: Tokens a session may be ahead of its reader.
        vocabulary: The model's.
        drafting: What guessing several tokens at once has to know of the model.
        glossary: Looks terms up.
        defaults: The model's, for what options leave open.
    """

    def __init__(
        self,
        engine: DecoderEngine,
        sessions: Sessions,
        metrics: DecoderMetrics,
        window: int,
        vocabulary: Vocabulary,
        drafting: Drafting,
        glossary: Glossary,
        defaults: Defaults,
    ) -> None:
        self.vocabulary = vocabulary
        self.engine = engine
        self.sessions = sessions
        self.metrics = metrics
        self._drafting = drafting
        self._glossary = glossary
        self._defaults = defaults
        self._window = window

    async def generate(
        self,
        session_id: str,
        options: GenerationOptions,
        start_index: int | None = None,
        tokens_per_message: int = 1,
        close_on_end: bool = False,
    ) -> AsyncGenerator[Yielded, None]:
        """Stream a session's tokens from `start_index` on, produced ones first, then the end.

        Args:
            session_id: Which session.
            options: How to choose; `max_new_tokens` counts from the first token streamed.
            start_index: First token wanted; None: the one after the last produced.
            tokens_per_message: Longest list yielded.
            close_on_end: Let the session go at the end.

        Raises:
            NotFoundError: SESSION_NOT_FOUND.
            AbortedError: SESSION_BUSY.
            FailedPreconditionError: START_INDEX_AHEAD.
            ResourceExhaustedError: OVER_BUDGET, there is no room for the beams.
            InvalidArgumentError: BAD_OPTION, terms of the glossary that cannot be.
        """
        options.check(self.vocabulary.size)
        called = time.perf_counter()
        record = self.sessions.record(session_id)
        if record is not None and record.end is not None and start_index is not None:
            for part in replay(record, options, start_index, tokens_per_message):
                yield part
            return
        session = self.sessions.get(session_id)
        await self.sessions.claim(session)
        start = checked_start(start_index, len(session.target.produced))
        limit = start + (options.max_new_tokens or session.target.max_positions)
        async with self._running(session, options, start, limit) as (generation, known):
            for part in batches(known, tokens_per_message):
                yield part
            first = 0.0
            while tokens := await _computed(generation, tokens_per_message):
                if not first:
                    first = time.perf_counter() - called
                    self.metrics.first_token_seconds.observe(first)
                yield tokens
                self.count_read(generation, len(tokens))
            if generation.hypotheses is not None:
                yield generation.hypotheses
            ended = self._ended(session, generation, start, called)
            if close_on_end:
                self.sessions.close(session, "ended")
        yield dataclasses.replace(ended, first_token_seconds=first)

    async def step(
        self,
        session_id: str,
        index: int,
        options: GenerationOptions,
        forced_token: int | None = None,
    ) -> IndexedToken | Ended:
        """Return the token at `index`: computed if it is the next one, else from the record.

        Args:
            session_id: Which session.
            index: Of the token wanted.
            options: How to choose.
            forced_token: What to take instead of choosing.

        Raises:
            NotFoundError: SESSION_NOT_FOUND.
            AbortedError: SESSION_BUSY.
            FailedPreconditionError: STEP_INDEX_AHEAD, or TOKEN_ALREADY_TAKEN.
            InvalidArgumentError: BAD_OPTION, a beam search has no single next token.
        """
        options.check(self.vocabulary.size, forced_token)
        options.check_stepwise()
        called = time.perf_counter()
        record = self.sessions.record(session_id)
        if record is not None and (answer := remembered(record, index, options)):
            check_forced(forced_token, index, record.produced, record.ended)
            return answer
        session = self.sessions.get(session_id)
        await self.sessions.claim(session)
        produced = session.target.produced
        check_forced(forced_token, index, produced, session.target.end)
        if index < len(produced):
            return cut(produced[: index + 1], options)[index]
        if index > len(produced):
            raise FailedPreconditionError(
                f"index: must be at most {len(produced)}, the next token's, got {index}",
                reason="STEP_INDEX_AHEAD",
            )
        forced = () if forced_token is None else (forced_token,)
        async with self._running(session, options, index, index + 1, forced) as (generation, _):
            if tokens := await _computed(generation, 1):
                self.count_read(generation, 1)
                return tokens[0]
            return self._ended(session, generation, index, called)

    @asynccontextmanager
    async def _running(
        self,
        session: Session,
        options: GenerationOptions,
        start: int,
        limit: int,
        forced: Sequence[int] = (),
    ) -> AsyncIterator[tuple[Generation, list[IndexedToken]]]:
        """Run a generation; whatever happens, it leaves the engine and the session is freed.

        Yields it together with the tokens from `start` on that are there already.
        """
        generation, known = self.prepared(session, options, start, limit, forced)
        how = "cancelled"
        try:
            self.engine.join(generation)
            yield generation, known
            how = (generation.end or EndReason.LENGTH).value
        except SplitformerError as error:
            how = "cancelled" if isinstance(error, NotFoundError) else "failed"
            self.sessions.close(session, "failed")
            raise
        finally:
            self.let_go(session, generation, how)

    def prepared(
        self,
        session: Session,
        options: GenerationOptions,
        start: int,
        limit: int,
        forced: Sequence[int] = (),
    ) -> tuple[Generation, list[IndexedToken]]:
        """Make a run of the loop, which the session belongs to from now on.

        Returns:
            The run, which has yet to join, and the tokens from `start` on that are there already.
        """
        options = options.under(self._defaults)
        if options.sampled:
            options = dataclasses.replace(options, seed=seed_of(options, session.seed))
        target = session.target
        wanted = self._glossary.wanted(options, target)
        decoding = decoding_for(
            target, options, limit, self.vocabulary, start, forced, self._drafting, wanted
        )
        held, told = decoding.held_bytes, self._most_told(session, options, limit)
        with Reservation(self.sessions.budget) as reservation:
            reservation.add(held, "options.num_beams")
            reservation.add(told, f"options.{'attention' if options.attention else 'alternatives'}")
            reservation.keep(held + told)
        known = list(decoding.certain())
        generation = Generation(decoding, self._window)
        generation.left.add_done_callback(lambda _: self._settle(session, held, told))
        session.generation, session.end = generation, None
        return generation, known

    def _most_told(self, session: Session, options: GenerationOptions, limit: int) -> int:
        """Bytes that what is to be told of a run's tokens may take."""
        target = session.target
        tokens = min(limit, target.max_positions) - len(target.produced) + 1  # and the end
        return most_bytes(options, session.source_positions, tokens)

    def _settle(self, session: Session, held: int, told: int) -> None:
        """Give back what a run has held, and keep what its tokens' details take."""
        self.sessions.budget.release(held)
        if told or session.details.count:
            session.details.settle(told, kept_bytes(session.target))

    def let_go(self, session: Session, generation: Generation, how: str) -> None:
        """Take a run out of the engine if it is still there; then its session is free."""
        self.metrics.ends.labels(how).inc()
        if not generation.left.done():
            self.engine.leave(generation)
        generation.left.add_done_callback(lambda _: self._free(session, generation))

    def count_read(self, generation: Generation, count: int) -> None:
        """Count tokens as read, and go on with a run that was waiting for that."""
        self.metrics.tokens.inc(count)
        if generation.take(count):
            self.engine.wake()

    def _ended(self, session: Session, generation: Generation, start: int, called: float) -> Ended:
        assert generation.end is not None
        now, target = time.perf_counter(), session.target
        session.end = generation.end
        queued = max(0.0, generation.first_step - called) if generation.steps else 0.0
        self.metrics.queue_seconds.observe(queued)
        tracing.parts(queue=queued, decode=now - called - queued)
        tracing.note(steps=generation.steps, end=generation.end.value)
        running = generation.last_step - generation.first_step
        drafted, accepted = drafts_of(generation.decoding)
        return Ended(
            reason=generation.end,
            tokens=max(0, min(len(target.produced), generation.decoding.limit) - start),
            total_tokens=len(target.produced),
            steps=generation.steps,
            drafted=drafted,
            accepted=accepted,
            seed=generation.decoding.seed,
            closing=target.end,
            queue_seconds=queued,
            step_seconds=running / generation.steps if generation.steps else 0.0,
            total_seconds=now - called,
        )

    def _free(self, session: Session, generation: Generation) -> None:
        if session.generation is generation:
            session.generation = None
            self.sessions.touch(session)


def arrived(generation: Generation, most: int) -> list[IndexedToken]:
    """Return at most `most` tokens that are there; note what candidates and what end are.

    Raises:
        SplitformerError: The generation has failed.
    """
    tokens: list[IndexedToken] = []
    while len(tokens) < most and (event := generation.next_nowait()) is not None:
        if isinstance(event, tuple):
            tokens.append(event)
        elif isinstance(event, SplitformerError):
            raise event
        elif isinstance(event, EndReason):
            generation.end = event
            break
        else:
            generation.hypotheses = event
    return tokens


async def _computed(generation: Generation, most: int) -> list[IndexedToken]:
    """Wait for tokens and return at most `most`; none once the generation has ended."""
    tokens: list[IndexedToken] = []
    while not tokens and generation.end is None:
        await generation.wait()
        tokens = arrived(generation, most)
    return tokens
