"""Two ways to run coroutines that asyncio does not have."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all at once; the first failure cancels the others and is raised as it is."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await cancel(tasks)


async def cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel what is still running and wait until it has ended; failures are not raised.

    A task that has been cancelled already may be cleaning up, and is not disturbed in it.
    """
    pending = list(tasks)
    for task in pending:
        if not task.cancelling():
            task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)


class Aftermath:
    """Runs clean-up to its end even if whoever asked for it is cancelled meanwhile."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run clean-up; if the caller is cancelled, the clean-up is not."""
        await asyncio.shield(self.start(work))

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run clean-up without waiting for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def finish(self) -> None:
        """Wait until all of it has ended."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
