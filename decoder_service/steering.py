"""Steering running loops: calls of Interact find their session and begin on it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from decoder_service.interaction import Interaction, Part, prompt
from decoder_service.opening import OpeningRules
from decoder_service.runs import Runs
from decoder_service.steers import Start, Steer, bad_action, check_options


class Steering:
    """Runs calls of Interact.

    Args:
        runs: Makes runs of the loop.
        rules: The model's.
        holding: From a session's id, what steers loops over its model.
    """

    def __init__(self, runs: Runs, rules: OpeningRules, holding: Callable[[str], Steering]) -> None:
        self._runs = runs
        self._rules = rules
        self._holding = holding

    async def parts(self, requests: AsyncIterator[Steer]) -> AsyncGenerator[Part]:
        """Give tokens, the answers to actions, and an `Ended` whenever the loop has come to one.

        Args:
            requests: A start, then what to do; read while the loop runs.

        Raises:
            NotFoundError: SESSION_NOT_FOUND.
            AbortedError: SESSION_BUSY.
            InvalidArgumentError: BAD_ACTION or BAD_OPTION.
            FailedPreconditionError: START_INDEX_AHEAD, REWIND_BEFORE_PREFIX, REWIND_AHEAD or
                NOTHING_TO_FORCE.
            DeadlineExceededError: INTERACTION_IDLE.
        """
        sessions = self._runs.sessions
        async with prompt(sessions.idle_seconds):
            first = await anext(requests, None)
        if first is None or not isinstance(first.action, Start):
            raise bad_action("start", "must be the first request")
        interaction = await self._holding(first.action.session_id)._begun(first)
        async with contextlib.aclosing(interaction.parts(requests)) as parts:
            async for part in parts:
                yield part

    async def _begun(self, first: Steer) -> Interaction:
        """Begin an interaction on a session of our model."""
        assert isinstance(first.action, Start)
        check_options(first.action.options, self._runs.vocabulary)
        sessions = self._runs.sessions
        session = sessions.get(first.action.session_id)
        await sessions.claim(session)
        return Interaction(self._runs, self._rules, session, first)
