"""One run of the loop, between the engine's thread and the event loop's reader."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence

from decoder_service.answers import IndexedToken
from splitformer.errors import SplitformerError
from splitformer.generation import Decoding, EndReason, Hypotheses, News

Event = News | SplitformerError
"""What a generation's reader gets: a token and its index, candidates, the end, or a failure."""


class Generation:
    """One run of the loop over one target, between the engine and its reader.

    Args:
        decoding: The way to decode; the engine's alone until `left`, and so is its target.
        window: Tokens it may be ahead of its reader.
    """

    def __init__(self, decoding: Decoding, window: int) -> None:
        self.decoding = decoding
        self.steps = 0
        self.joined = time.perf_counter()
        self.first_step = 0.0
        self.last_step = 0.0
        self.end: EndReason | None = None
        self.hypotheses: Hypotheses | None = None
        self.leaving = False
        self.left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._window = window
        self._published = 0
        self._taken = 0
        self._events: deque[Event] = deque()
        self._waiter: asyncio.Future[None] | None = None

    @property
    def paused(self) -> bool:
        """True while the reader is a whole window behind."""
        return self._published - self._taken >= self._window

    def news(self) -> list[News]:
        """Return what the last step brought; called by the engine after each step."""
        news = self.decoding.news()
        self._published += len(news) - (not goes_on(news))
        return news

    def put(self, events: Iterable[Event]) -> None:
        """Add events for the reader; on the event loop only."""
        self._events.extend(events)
        self.stir()

    def has_left(self) -> None:
        """Say that the engine has let go of the target; on the event loop only."""
        if not self.left.done():
            self.left.set_result(None)

    def stir(self) -> None:
        """Let a reader who waits look round."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> Event:
        """Wait for the next event; there is one reader."""
        while not self._events:
            await self.wait()
        return self._events.popleft()

    async def wait(self) -> None:
        """Wait until there is an event, or somebody stirs."""
        if not self._events:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def next_nowait(self) -> Event | None:
        """Return the next event if there is one."""
        return self._events.popleft() if self._events else None

    def arrived(self, most: int) -> list[IndexedToken]:
        """Return at most `most` tokens that are there; note what candidates and what end are.

        Raises:
            SplitformerError: The generation has failed.
        """
        tokens: list[IndexedToken] = []
        while len(tokens) < most and (event := self.next_nowait()) is not None:
            if isinstance(event, tuple):
                tokens.append(event)
            elif isinstance(event, SplitformerError):
                raise event
            elif isinstance(event, EndReason):
                self.end = event
                break
            else:
                self.hypotheses = event
        return tokens

    async def tokens(self, most: int) -> list[IndexedToken]:
        """Wait for tokens and return at most `most`; none once the generation has ended."""
        tokens: list[IndexedToken] = []
        while not tokens and self.end is None:
            await self.wait()
            tokens = self.arrived(most)
        return tokens

    def take(self, count: int) -> bool:
        """Count tokens as read; True if that ended a pause, so that the engine must be woken.

        The order matters: counting first and looking second, while the engine publishes first and
        looks second, makes sure that at least one side sees the other.
        """
        self._taken += count
        return self._published - self._taken + count >= self._window


def goes_on(events: Sequence[Event]) -> bool:
    """True unless the last of these events ends its generation."""
    return not events or isinstance(events[-1], tuple)


def deliver(news: Sequence[tuple[Generation, Sequence[Event]]]) -> None:
    """Give events to readers; on the event loop only."""
    for generation, events in news:
        generation.put(events)
        if not goes_on(events):
            generation.has_left()
