"""One call of Interact: runs and steers the loop of one session, from its start to its end.

The loop runs as for Generate. Whatever the caller asks for, it is taken out of the engine between
two steps, the target or the options are changed, and a new run goes on from there. So every token
is what a Generate over the same target would have given, and what was on its way to the caller when
an action arrived is sent before the action's answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator

from decoder_service.answers import Ended, IndexedToken
from decoder_service.opening import OpeningRules
from decoder_service.recalling import checked_start
from decoder_service.runs import Runs
from decoder_service.sessions import Session
from decoder_service.steers import (
    Finish,
    Force,
    Redirect,
    Rewind,
    Start,
    Steer,
    bad_action,
    check_options,
    check_rewind,
)
from splitformer.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    SplitformerError,
)
from splitformer.generation import EndReason

ACTIONS_AHEAD = 64
"""Most requests that are read before they are obeyed."""

Part = list[IndexedToken] | Rewind | Ended


class Interaction:
    """One call: runs and steers the loop of one session.

    Args:
        runs: Makes runs of the loop.
        rules: The model's.
        session: Whose loop; nobody else may be using it.
        first: The caller's first request, a start.
    """

    def __init__(self, runs: Runs, rules: OpeningRules, session: Session, first: Steer) -> None:
        assert isinstance(first.action, Start)
        self._runs = runs
        self._rules = rules
        self._session, self._target = session, session.target
        self._start = start = first.action
        self._held = first.hold
        self._options = start.options
        self._actions: asyncio.Queue[Steer] = asyncio.Queue(ACTIONS_AHEAD)
        self._silent = False
        self._failure: Exception | None = None
        self._forced: tuple[int, ...] = ()
        self._known: list[IndexedToken] = []
        self._told_end = False
        self._streamed = self._steps = 0
        self._queued = self._first = self._stepped = 0.0
        self._called = time.perf_counter()
        self._sent = checked_start(start.start_index, len(session.target.produced))
        self._limit_from(self._sent)
        self._renew()

    async def parts(self, requests: AsyncIterator[Steer]) -> AsyncGenerator[Part]:
        """Give what there is to send; see `Steering.parts`."""
        reading = asyncio.create_task(self._read(requests))
        how = "cancelled"
        try:
            async with contextlib.aclosing(self._run()) as run:
                async for part in run:
                    yield part
            how = (self._session.end or EndReason.CANCELLED).value
            if self._start.close_on_end:
                self._runs.sessions.close(self._session, "ended")
        finally:
            reading.cancel()
            self._runs.let_go(self._session, self._generation, how)

    async def _run(self) -> AsyncGenerator[Part]:
        while True:
            while (steer := self._next()) is not None:
                if isinstance(steer.action, Finish):
                    if not self._told_end:
                        await self._stop()
                        yield self._ended(EndReason.CANCELLED)
                    return
                for part in await self._obey(steer):
                    yield part
            if tokens := self._tokens():
                yield tokens
            elif self._generation.end is not None and not self._told_end:
                self._told_end = True
                yield self._ended(self._generation.end)
            elif (self._told_end and self._silent) or not await self._waited():
                return

    async def _read(self, requests: AsyncIterator[Steer]) -> None:
        """Take requests in; what is wrong with one ends the call."""
        try:
            async for steer in requests:
                await self._actions.put(steer)
                self._generation.stir()
        except Exception as error:
            self._failure = error
        finally:
            self._silent = True
            self._generation.stir()

    def _next(self) -> Steer | None:
        """Return the next request; once there will be none, nothing holds the loop."""
        if not self._actions.empty():
            return self._actions.get_nowait()
        if self._failure is not None:
            raise self._failure
        if self._silent and self._held:
            self._held = False
            self._join()
        return None

    async def _waited(self) -> bool:
        """Wait for something to happen; False if the caller has left an ended loop alone.

        Raises:
            DeadlineExceededError: INTERACTION_IDLE, the loop was held for too long.
        """
        if not (self._held or self._told_end):
            await self._generation.wait()
            return True
        try:
            async with prompt(self._runs.sessions.idle_seconds):
                await self._generation.wait()
        except DeadlineExceededError:
            if self._held:
                raise
            return False
        return True

    def _tokens(self) -> list[IndexedToken]:
        """Return what there is to send now; notes the end."""
        most, known = self._start.tokens_per_message, self._known
        tokens, self._known = known[:most], known[most:]
        tokens = tokens or self._computed(most)
        if tokens:
            self._sent = tokens[-1][0] + 1
            self._streamed += len(tokens)
        return tokens

    def _computed(self, most: int) -> list[IndexedToken]:
        """Return what the run has brought since the last time."""
        try:
            tokens = self._generation.arrived(most)
        except SplitformerError as error:
            raise self._broken(error) from None
        if tokens:
            self._first = self._first or time.perf_counter() - self._called
            self._runs.count_read(self._generation, len(tokens))
        return tokens

    def _broken(self, error: SplitformerError) -> SplitformerError:
        """A run that fails takes its session with it."""
        self._runs.sessions.close(self._session, "failed")
        return error

    async def _obey(self, steer: Steer) -> list[Part]:
        """Do what is asked and go on; return the answers."""
        await self._stop()
        action, answers = steer.action, list[Part]()
        if isinstance(action, Rewind):
            answers = self._rewind(action.index, "rewind")
        elif isinstance(action, Redirect):
            check_options(action.options, self._runs.vocabulary)
            self._options = action.options
            self._limit_from(len(self._target.produced))
        elif isinstance(action, Force):
            self._options.check(self._runs.vocabulary.size, action.token, "force.token")
            answers = [] if action.index is None else self._rewind(action.index, "force")
            self._forced += (action.token,)
        else:
            raise bad_action("start", "must be the first request only")
        self._held = steer.hold
        self._renew()
        return answers

    def _rewind(self, index: int, field: str) -> list[Part]:
        """Take back all from a token on; return what the caller lacks before it, and the answer."""
        target = self._target
        check_rewind(index, len(target.produced), f"{field}.index")
        lacking = [(i, target.produced[i]) for i in range(self._sent, index)]
        kept = (token.id for token in target.produced[:index])
        target.rewind(index, self._rules.detokenizer(target.start, *kept))
        self._sent, self._forced = index, ()
        self._streamed += len(lacking)
        return [*([lacking] if lacking else []), Rewind(index)]

    def _limit_from(self, index: int) -> None:
        """Let the options' count of tokens begin at an index."""
        self._limit = index + (self._options.max_new_tokens or self._target.max_positions)

    def _renew(self) -> None:
        """Make the next run of the loop, and let it go unless it is held."""
        self._runs.sessions.get(self._session.id)  # it may have been closed meanwhile
        generation, self._known = self._runs.prepared(
            self._session, self._options, self._sent, self._limit, self._forced
        )
        self._generation, self._counted = generation, False
        if self._forced and generation.decoding.finished:
            raise FailedPreconditionError(
                "force: there is no next token, the loop has ended; rewind or redirect first",
                reason="NOTHING_TO_FORCE",
            )
        self._produced = len(self._target.produced)
        self._joined = self._told_end = False
        if not self._held:
            self._join()

    def _join(self) -> None:
        self._runs.engine.join(self._generation)
        self._joined = True

    async def _stop(self) -> None:
        """Take the run out of the engine; what it has not taken of forced tokens is kept."""
        generation = self._generation
        if self._joined and not generation.left.done():
            await self._runs.engine.withdraw(generation)
        elif not generation.left.done():  # it has never joined
            generation.left.set_result(None)
        while (event := generation.next_nowait()) is not None:
            if isinstance(event, SplitformerError):
                raise self._broken(event)
        self._count()
        target = self._target
        taken = len(target.produced) - self._produced + (target.end is not None)
        self._forced = self._forced[taken:]

    def _count(self) -> None:
        """Add what the run has cost to the sums."""
        generation = self._generation
        if generation.steps and not self._counted:
            self._counted = True
            self._queued = self._queued or max(0.0, generation.first_step - self._called)
            self._stepped += generation.last_step - generation.first_step
            self._steps += generation.steps

    def _ended(self, reason: EndReason) -> Ended:
        """Say how the loop has ended; `tokens` counts those that were taken back too."""
        self._count()
        target, steps = self._target, self._steps
        self._session.end = reason
        return Ended(
            reason=reason,
            tokens=self._streamed,
            total_tokens=len(target.produced),
            steps=steps,
            seed=self._generation.decoding.seed,
            closing=target.end,
            queue_seconds=self._queued,
            first_token_seconds=self._first,
            step_seconds=self._stepped / steps if steps else 0.0,
            total_seconds=time.perf_counter() - self._called,
        )


@contextlib.asynccontextmanager
async def prompt(seconds: float) -> AsyncIterator[None]:
    """DeadlineExceededError INTERACTION_IDLE if the caller's next request takes too long."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise DeadlineExceededError(
            f"action: the next request must come within {seconds} s", reason="INTERACTION_IDLE"
        ) from None
