"""Making sessions: over a memory that comes from somewhere, or over that of another session."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from decoder_service.budget import Budget, Reservation, Share
from decoder_service.engine import DecoderEngine
from decoder_service.metrics import DecoderMetrics
from decoder_service.opening import Branch, OpeningRules, Wish, pieces_of
from decoder_service.sessions import Opened, Session, Sessions
from splitformer import wire
from splitformer.generation import Target, kept_bytes
from splitformer.model.cache import DecoderState
from splitformer.model.description import Description
from splitformer.serving import packing
from splitformer.v1 import tensor_pb2

CheckHeader = Callable[[tensor_pb2.MemoryHeader], None]
Transfer = Callable[[CheckHeader], Awaitable[tuple[tensor_pb2.MemoryHeader, wire.Buffer]]]
"""Brings a memory: checks its header with what it is given, then returns header and bytes."""


async def _nothing_more() -> None:
    """What follows a memory that was pulled."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a memory comes.

    Attributes:
        route: "upload" or "reference", for counting.
        transfer: Brings it.
        end: Awaited beside its projection; raises if more comes than was promised.
    """

    route: str
    transfer: Transfer
    end: Callable[[], Awaitable[None]] = _nothing_more


class Beginnings:
    """Makes sessions of one model, within the budget.

    Args:
        description: The model's.
        rules: What must hold, and how much room is taken.
        engine: Where keys and values are computed.
        sessions: Where sessions are kept.
        budget: What they are counted against.
        metrics: Where to count.
    """

    def __init__(
        self,
        description: Description,
        rules: OpeningRules,
        engine: DecoderEngine,
        sessions: Sessions,
        budget: Budget,
        metrics: DecoderMetrics,
    ) -> None:
        self._description = description
        self._rules = rules
        self._engine = engine
        self._sessions = sessions
        self._budget = budget
        self._metrics = metrics

    async def over_memory(
        self, wish: Wish, start: tuple[int, ...], way: Way, named: bool = True
    ) -> Opened:
        """Open a session over a memory.

        Args:
            wish: What the caller asks for.
            start: The decoder's first input.
            way: How the memory comes.
            named: The caller will learn the session's id.

        Raises:
            SplitformerError: What the rules, the budget and `way` raise.
        """
        began = time.perf_counter()
        positions = self._rules.positions(wish)
        own = self._rules.own_bytes(positions)
        with Reservation(self._budget) as reservation:

            def admit(header: tensor_pb2.MemoryHeader) -> None:
                self._rules.check_header(header, wish.language)
                size = own + self._rules.memory_bytes(header.shape[0])
                reservation.add(size + wire.packed_bytes(header.dtype, header.shape), "memory")

            header, data = await way.transfer(admit)
            received = time.perf_counter()
            self._metrics.received_bytes.inc(len(data))
            state = await self._projected(header, data, way)
            language = header.target_language or wish.language
            if self._rules.detects(language):
                language = await self._detected(state)
                start = self._rules.start_tokens(dataclasses.replace(wish, language=language))
            target = Target(start, state, self._rules.detokenizer(start), positions)
            target.source, target.source_text = pieces_of(header), header.source_text
            target.forced = self._rules.forced(wish, start)
            memory_bytes = self._rules.memory_bytes(header.shape[0])
            share = Share(self._budget, memory_bytes)
            session = self._sessions.add(target, language, header.shape[0], own, share, named=named)
            reservation.keep(own + memory_bytes)
        return Opened(session, received - began, time.perf_counter() - received)

    async def over_session(self, parent: Session, branch: Branch) -> Opened:
        """Open a session over another one's memory, with what the branch keeps of it.

        Raises:
            AbortedError: SESSION_BUSY.
            SplitformerError: What the rules and the budget raise.
        """
        began = time.perf_counter()
        await self._sessions.claim(parent)
        kept = self._rules.check_branch(branch, parent.language, len(parent.target.produced))
        language = branch.language or parent.language
        positions, own = parent.target.max_positions, parent.own_bytes
        with Reservation(self._budget) as reservation:
            reservation.add(own, "session")
            if language == parent.language:
                target = await self._branch(parent.target, kept)
            else:
                speech = self._rules.same_speech(parent.target.start)
                start = self._rules.start_tokens(Wish(language, speech=speech))
                state = parent.target.state.afresh()
                target = Target(start, state, self._rules.detokenizer(start), positions)
                target.forced = self._rules.forced(Wish(language), start)
            target.source = parent.target.source
            target.source_text = parent.target.source_text
            details = kept_bytes(target)
            reservation.add(details, "session")
            session = self._sessions.add(
                target, language, parent.source_positions, own, parent.memory, details
            )
            reservation.keep(own + details)
        return Opened(session, 0.0, time.perf_counter() - began)

    async def _projected(
        self, header: tensor_pb2.MemoryHeader, data: wire.Buffer, way: Way
    ) -> DecoderState:
        """Compute a memory's keys and values, and see meanwhile that nothing follows it."""
        memory = packing.unpack(data, header.dtype, header.shape, "memory")
        self._rules.check_values(memory)
        projecting = self._engine.begin(memory)
        try:
            await way.end()
            return await projecting
        finally:
            projecting.cancel()  # without effect once it is done

    async def _detected(self, state: DecoderState) -> str:
        """Find out the language of a memory; what was computed for that stays in the state."""
        description = self._description
        assert description.speech is not None
        start, tokens = description.languages.starts[""], description.speech.languages
        found = await self._engine.likeliest_of(state, start[0], list(tokens.values()))
        return next(language for language, token in tokens.items() if token == found)

    async def _branch(self, target: Target, kept: int) -> Target:
        """Copy a target up to `kept` tokens; the end goes with the last of them."""
        produced, end = target.produced[:kept], target.end
        whole = kept == len(target.produced)
        state = await self._engine.fork(target.state)
        state.truncate(min(state.length, len(target.start) + kept - 1))
        detokenizer = self._rules.detokenizer(target.start, *(token.id for token in produced))
        branch = Target(target.start, state, detokenizer, target.max_positions, produced)
        branch.end, branch.forced = end if whole else None, target.forced
        return branch
