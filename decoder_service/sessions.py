"""Sessions: who holds which target, within which byte budget, until when.

A session ends when its caller closes it, when a generation with `close_on_end` is over, or when it
has been idle too long. Its keys and values go at once; its tokens are remembered for a short while,
so that a caller whose last answer got lost can still ask for them.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from decoder_service.budget import Budget, Details, Share
from decoder_service.generation import Generation
from splitformer.errors import AbortedError, NotFoundError, shown
from splitformer.generation import EndReason, Produced, Search, Target
from splitformer.serving.ids import fresh_ids


@dataclass(eq=False, slots=True)
class Session:
    """One target over one memory, as its caller sees it.

    Attributes:
        id: 128 random bits, hexadecimal.
        target: Tokens, keys and values.
        language: Target language.
        source_positions: Rows of the memory.
        own_bytes: What its own keys and values count against the budget.
        memory: What the memory's keys and values count, together with its forks.
        details: What attention and the like of its tokens count.
        last_used: When a call last ended or began, on the registry's clock.
        named: Its caller knows its id, so that its tokens are remembered when it is let go.
        end: Why the last generation ended.
        generation: The one that is running or being taken out.
    """

    id: str
    target: Target
    language: str
    source_positions: int
    own_bytes: int
    memory: Share
    details: Details
    last_used: float
    named: bool = True
    end: EndReason | None = None
    generation: Generation | None = None
    _seed: int | None = None

    @property
    def seed(self) -> int:
        """Key of the generator for calls that name none."""
        if self._seed is None:
            self._seed = secrets.randbits(63)
        return self._seed

    @property
    def size_bytes(self) -> int:
        """Bytes of keys and values held; what is shared with forks counts in full."""
        return self.own_bytes + self.memory.count


@dataclass(frozen=True, slots=True)
class Opened:
    """A new session and where the time of its opening went, in seconds."""

    session: Session
    transfer_seconds: float
    project_seconds: float


@dataclass(frozen=True, slots=True)
class Record:
    """What is remembered of a session that was let go.

    Attributes:
        produced: Its tokens.
        ended: The end token, if its target had one.
        end: Why its last generation ended, if that is what let it go.
        seed: Key of the generator for calls that named none.
        language: Target language.
        source_positions: Rows of the memory.
        search: The beam search that found its tokens, if one did.
        forget_at: Until when, on the registry's clock.
    """

    produced: tuple[Produced, ...]
    ended: Produced | None
    end: EndReason | None
    seed: int
    language: str
    source_positions: int
    search: Search | None
    forget_at: float


class Sessions:
    """All sessions of one decoder service, on its event loop.

    Args:
        budget: Shared with memories on their way in.
        idle_seconds: A session that is not used for this long is let go.
        record_seconds: How long its tokens are remembered then.
        closed: Called with "closed", "ended", "expired" or "failed" when a session is let go.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        budget: Budget,
        idle_seconds: float,
        record_seconds: float,
        closed: Callable[[str], None] = lambda how: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.budget = budget
        self.idle_seconds = idle_seconds
        self._record_seconds = record_seconds
        self._closed = closed
        self._clock = clock
        self._sessions: dict[str, Session] = {}
        self._records: dict[str, Record] = {}
        self._openings: dict[str, asyncio.Future[Opened]] = {}
        self._ids = fresh_ids()

    def __len__(self) -> int:
        return len(self._sessions)

    def add(
        self,
        target: Target,
        language: str,
        source_positions: int,
        own_bytes: int,
        memory: Share,
        details_bytes: int = 0,
        named: bool = True,
    ) -> Session:
        """Register a new session; its bytes have been reserved already."""
        session_id = next(self._ids)
        memory.hold()
        session = Session(
            session_id,
            target,
            language,
            source_positions,
            own_bytes,
            memory,
            Details(self.budget, details_bytes),
            self._clock(),
            named,
        )
        self._sessions[session_id] = session
        return session

    def get(self, session_id: str) -> Session:
        """Return an open session; NotFoundError SESSION_NOT_FOUND otherwise."""
        session = self._sessions.get(session_id)
        if session is not None and self.expires_in(session) <= 0:
            self.close(session, "expired")
            session = None
        if session is None:
            raise NotFoundError(
                f"session_id: is unknown, closed or expired, got {shown(session_id)}",
                reason="SESSION_NOT_FOUND",
            )
        return session

    def knows(self, session_id: str) -> bool:
        """True if a session is open or remembered."""
        return session_id in self._sessions or session_id in self._records

    def record(self, session_id: str) -> Record | None:
        """Return what is remembered of a session that was let go."""
        record = self._records.get(session_id)
        return record if record is not None and record.forget_at > self._clock() else None

    def expires_in(self, session: Session) -> float:
        """Seconds until a session is let go if nothing happens; the whole time while it runs."""
        if session.generation is not None:
            return self.idle_seconds
        return session.last_used + self.idle_seconds - self._clock()

    def touch(self, session: Session) -> None:
        """Count a session as just used."""
        session.last_used = self._clock()

    def recently_used(self, seconds: float) -> bool:
        """True if a session is running or was used within the last seconds."""
        now = self._clock()
        return any(s.generation or now - s.last_used < seconds for s in self._sessions.values())

    async def claim(self, session: Session) -> None:
        """Make sure that no generation uses a session; one that is leaving is waited for.

        Raises:
            AbortedError: SESSION_BUSY.
            NotFoundError: SESSION_NOT_FOUND, it was closed while we waited.
        """
        while session.generation is not None:
            if not session.generation.leaving:
                raise AbortedError(
                    f"session_id: has a generation or step running, got {session.id!r}"
                )
            await asyncio.wait([session.generation.left])  # unlike await, never cancels it
            self.get(session.id)
        self.touch(session)

    def close(self, session: Session, how: str) -> int:
        """Let a session go; return the bytes freed. Its tokens are remembered for a while."""
        if self._sessions.pop(session.id, None) is None:
            return 0
        self.budget.release(session.own_bytes)
        session.details.let_go()
        self._closed(how)
        if session.named:
            self._records[session.id] = self._record_of(session, how)
        return session.own_bytes + session.memory.let_go()

    def _record_of(self, session: Session, how: str) -> Record:
        return Record(
            tuple(session.target.produced),
            session.target.end,
            session.end if how == "ended" else None,
            session.seed,
            session.language,
            session.source_positions,
            session.target.finished_search,
            self._clock() + self._record_seconds,
        )

    def sweep(self) -> None:
        """Let go idle sessions and forget old records."""
        for session in list(self._sessions.values()):
            if self.expires_in(session) <= 0:
                self.close(session, "expired")
        now = self._clock()
        self._records = {key: r for key, r in self._records.items() if r.forget_at > now}
        self._openings = {
            key: opening
            for key, opening in self._openings.items()
            if not opening.done() or self._is_open(opening)
        }

    @asynccontextmanager
    async def opening(self, request_id: str) -> AsyncIterator[asyncio.Future[Opened]]:
        """Make opening idempotent.

        Yields a future: already done if a call with the same id has opened a session that is still
        there, otherwise to be set by the caller. A call that fails leaves the id to the next one.
        """
        known = self._openings.get(request_id)
        while request_id and known is not None:
            await asyncio.wait([known])
            if self._is_open(known):
                self.touch(known.result().session)
                yield known
                return
            if self._openings.get(request_id) is known:
                break
            known = self._openings.get(request_id)
        future: asyncio.Future[Opened] = asyncio.get_running_loop().create_future()
        if request_id:
            self._openings[request_id] = future
        try:
            yield future
        finally:
            if not future.done():
                future.cancel()

    def _is_open(self, opening: asyncio.Future[Opened]) -> bool:
        """True if an opening that is done led to a session that is still there."""
        if opening.cancelled():
            return False
        session = opening.result().session
        return session.id in self._sessions and self.expires_in(session) > 0
