"""What the event loop has other threads do for it."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

R = TypeVar("R")
T = TypeVar("T")


class Errand(Generic[R]):
    """A function for another thread to run; made on the event loop.

    Attributes:
        answer: What comes of it. Where that is cancelled first, the function is not run.
    """

    def __init__(self, function: Callable[[], R]) -> None:
        self._loop = asyncio.get_running_loop()
        self._function = function
        self.answer: asyncio.Future[R] = self._loop.create_future()

    def run(self) -> None:
        """Run it; on the other thread."""
        if self.answer.cancelled():
            return
        try:
            result = self._function()
        except Exception as error:
            self._loop.call_soon_threadsafe(_settle, self.answer, self.answer.set_exception, error)
        else:
            self._loop.call_soon_threadsafe(_settle, self.answer, self.answer.set_result, result)


class Runner:
    """A thread that runs errands one after the other: a hop there and back, and no more.

    `concurrent.futures` takes three times as long on the event loop.
    """

    def __init__(self, name: str) -> None:
        self._errands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def run(self, errand: Errand[R]) -> None:
        """Run an errand after those before it."""
        self._errands.put(errand.run)

    def close(self) -> None:
        """End the thread once all errands are run."""
        self._errands.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (run := self._errands.get()) is not None:
            run()


def _settle(answer: asyncio.Future[R], setter: Callable[[T], None], value: T) -> None:
    if not answer.done():
        setter(value)
