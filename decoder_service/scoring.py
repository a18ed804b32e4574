"""Scoring: what a session's model thinks of a given target. The session's own is left alone."""

from __future__ import annotations

from decoder_service.budget import Budget, Reservation
from decoder_service.engine import DecoderEngine
from decoder_service.generation import Generation
from decoder_service.opening import OpeningRules, Wish
from decoder_service.sessions import Sessions
from splitformer.errors import SplitformerError
from splitformer.generation import EndReason, Produced, Scoring, Target


class Scorer:
    """Runs calls of Score.

    Args:
        engine: Where the positions are computed.
        sessions: Where sessions are found.
        budget: What keys and values of the given target are taken from while it is scored.
        rules: The model's.
    """

    def __init__(
        self, engine: DecoderEngine, sessions: Sessions, budget: Budget, rules: OpeningRules
    ) -> None:
        self._engine = engine
        self._sessions = sessions
        self._budget = budget
        self._rules = rules

    async def score(
        self, session_id: str, given: str | tuple[int, ...], include_end: bool
    ) -> list[Produced]:
        """Return the tokens of a target with their log-probabilities.

        The session may be generating meanwhile; only its memory and language matter.

        Args:
            session_id: Which session.
            given: The target, as text or as ids.
            include_end: Score the end token behind it too.

        Raises:
            NotFoundError: SESSION_NOT_FOUND.
            InvalidArgumentError: EMPTY_TARGET, TARGET_TOO_LONG or TOKEN_OUT_OF_RANGE.
            ResourceExhaustedError: OVER_BUDGET.
        """
        session = self._sessions.get(session_id)
        start = self._rules.start_tokens(Wish(session.language))
        tokens = self._rules.scored_tokens(given, include_end, len(start))
        positions = len(start) + len(tokens) - 1
        self._sessions.touch(session)
        session.memory.hold()
        try:
            with Reservation(self._budget) as reservation:
                reservation.add(self._rules.own_bytes(positions), "target")
                state = session.target.state.afresh()
                target = Target(start, state, self._rules.detokenizer(start), positions)
                return await self._scored(Generation(Scoring(target, tokens), len(tokens) + 1))
        finally:
            session.memory.let_go()
            self._sessions.touch(session)

    async def _scored(self, generation: Generation) -> list[Produced]:
        """Run it to its end; whatever happens, it leaves the engine."""
        scored: list[Produced] = []
        try:
            self._engine.join(generation)
            while not isinstance(event := await generation.next(), EndReason):
                if isinstance(event, SplitformerError):
                    raise event
                assert isinstance(event, tuple)  # it searches for nothing
                scored.append(event[1])
            return scored
        finally:
            if not generation.left.done():
                self._engine.leave(generation)
