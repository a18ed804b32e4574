"""Runs of the loop on sessions: made within the budget, joined to the engine, and let go.

A run that ends, is cancelled or breaks leaves the engine's batch at once; the session keeps its
tokens, keys and values, so that it can be resumed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from decoder_service.answers import IndexedToken
from decoder_service.budget import Reservation
from decoder_service.engine import DecoderEngine
from decoder_service.generation import Generation
from decoder_service.metrics import DecoderMetrics
from decoder_service.recalling import seed_of
from decoder_service.sessions import Session, Sessions
from splitformer.errors import NotFoundError, SplitformerError
from splitformer.generation import (
    Decoding,
    Drafting,
    EndReason,
    GenerationOptions,
    Glossary,
    Vocabulary,
    decoding_for,
    draft_mode_of,
    drafts_of,
    kept_bytes,
    most_bytes,
)
from splitformer.model.defaults import Defaults


class Runs:
    """Runs of the loop over one model.

    Args:
        engine: Where the steps are computed.
        sessions: Where sessions and records are found.
        metrics: Where to count.
        window: Tokens a run may be ahead of its reader.
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
        self.engine = engine
        self.sessions = sessions
        self.vocabulary = vocabulary
        self._metrics = metrics
        self._window = window
        self._drafting = drafting
        self._glossary = glossary
        self._defaults = defaults

    @asynccontextmanager
    async def running(
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
        options = self._glossary.spelled(options.under(self._defaults))
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
        generation.left.add_done_callback(lambda _: self._settle(session, decoding, held, told))
        session.generation, session.end = generation, None
        return generation, known

    def _most_told(self, session: Session, options: GenerationOptions, limit: int) -> int:
        """Bytes that what is to be told of a run's tokens may take."""
        target = session.target
        tokens = min(limit, target.max_positions) - len(target.produced) + 1  # and the end
        return most_bytes(options, session.source_positions, tokens)

    def _settle(self, session: Session, decoding: Decoding, held: int, told: int) -> None:
        """Count a run's guesses, give back what it has held, keep what its details take."""
        if (mode := draft_mode_of(decoding)) is not None:
            self._metrics.count_drafts(mode, *drafts_of(decoding))
        self.sessions.budget.release(held)
        if told or session.details.count:
            session.details.settle(told, kept_bytes(session.target))

    def let_go(self, session: Session, generation: Generation, how: str) -> None:
        """Take a run out of the engine if it is still there; then its session is free."""
        self._metrics.ends.labels(how).inc()
        if not generation.left.done():
            self.engine.leave(generation)
        generation.left.add_done_callback(lambda _: self._free(session, generation))

    def count_read(self, generation: Generation, count: int) -> None:
        """Count tokens as read, and go on with a run that was waiting for that."""
        self._metrics.tokens.inc(count)
        if generation.take(count):
            self.engine.wake()

    def _free(self, session: Session, generation: Generation) -> None:
        if session.generation is generation:
            session.generation = None
            self.sessions.touch(session)
