"""The reading side of the loop: what one Generate or Step does with a session."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncGenerator

from decoder_service.answers import Ended, IndexedToken, Yielded
from decoder_service.generation import Generation
from decoder_service.metrics import DecoderMetrics
from decoder_service.recalling import (
    batches,
    check_forced,
    checked_start,
    cut,
    remembered,
    replay,
)
from decoder_service.runs import Runs
from decoder_service.sessions import Session
from splitformer import tracing
from splitformer.errors import FailedPreconditionError
from splitformer.generation import GenerationOptions, drafts_of


class Generating:
    """Runs calls of Generate and Step.

    Args:
        runs: Makes runs of the loop.
        metrics: Where to count.
    """

    def __init__(self, runs: Runs, metrics: DecoderMetrics) -> None:
        self._runs = runs
        self._metrics = metrics

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
        options.check(self._runs.vocabulary.size)
        called = time.perf_counter()
        record = self._runs.sessions.record(session_id)
        if record is not None and record.end is not None and start_index is not None:
            for part in replay(record, options, start_index, tokens_per_message):
                yield part
            return
        session = self._runs.sessions.get(session_id)
        await self._runs.sessions.claim(session)
        start = checked_start(start_index, len(session.target.produced))
        limit = start + (options.max_new_tokens or session.target.max_positions)
        async with self._runs.running(session, options, start, limit) as (generation, known):
            for part in batches(known, tokens_per_message):
                yield part
            first = 0.0
            while tokens := await generation.tokens(tokens_per_message):
                if not first:
                    first = time.perf_counter() - called
                    self._metrics.first_token_seconds.observe(first)
                yield tokens
                self._runs.count_read(generation, len(tokens))
            if generation.hypotheses is not None:
                yield generation.hypotheses
            ended = self._ended(session, generation, start, called)
            if close_on_end:
                self._runs.sessions.close(session, "ended")
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
        options.check(self._runs.vocabulary.size, forced_token, stepwise=True)
        called = time.perf_counter()
        record = self._runs.sessions.record(session_id)
        if record is not None and (answer := remembered(record, index, options)):
            check_forced(forced_token, index, record.produced, record.ended)
            return answer
        session = self._runs.sessions.get(session_id)
        await self._runs.sessions.claim(session)
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
        async with self._runs.running(session, options, index, index + 1, forced) as (
            generation,
            _,
        ):
            if tokens := await generation.tokens(1):
                self._runs.count_read(generation, 1)
                return tokens[0]
            return self._ended(session, generation, index, called)

    def _ended(self, session: Session, generation: Generation, start: int, called: float) -> Ended:
        assert generation.end is not None
        now, target = time.perf_counter(), session.target
        session.end = generation.end
        queued = max(0.0, generation.first_step - called) if generation.steps else 0.0
        self._metrics.queue_seconds.observe(queued)
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
