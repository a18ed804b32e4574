"""An event loop on a thread of its own, for callers that have none."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, Generic, Protocol, Self, TypeVar

from splitformer.errors import CancelledError, FailedPreconditionError

T = TypeVar("T")
Item = TypeVar("Item", covariant=True)


class Portal:
    """Runs coroutines for other threads, any number at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_report)
        self._thread = threading.Thread(target=self._serve, name="splitformer-client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and wait for it; an interrupt cancels it.

        Raises:
            CancelledError: The client was closed meanwhile.
            FailedPreconditionError: CLIENT_CLOSED.
        """
        future = self._submit(work)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise CancelledError("client: closed while the call was running") from None
        except KeyboardInterrupt:
            future.cancel()
            raise

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine without waiting; does nothing if the loop has stopped."""
        if self._loop.is_closed():
            work.close()
        else:
            self._submit(work)

    def close(self) -> None:
        """Cancel what is running and stop the loop; safe on any thread, more than once."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        if self._loop.is_closed():
            work.close()
            raise FailedPreconditionError("client: is closed", reason="CLIENT_CLOSED")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._cancel_all())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report what goes wrong in the loop, except for a known harmless thing.

    All loops of a process that use gRPC are woken by the same pipe; those that find it empty raise
    BlockingIOError (https://github.com/grpc/grpc/issues/25364).
    """
    if not isinstance(context.get("exception"), BlockingIOError):
        loop.default_exception_handler(context)


class Items(Protocol[Item]):
    """An asynchronous iterator that can be stopped early."""

    async def __anext__(self) -> Item:
        """Wait for the next one."""

    async def aclose(self) -> None:
        """Stop."""


class Stream(Generic[T]):
    """An asynchronous iterator as a plain one.

    `close`, leaving a `with` block or letting go of it (as `break` in a `for` loop does) stops what
    is behind it.

    Args:
        portal: Where the iterator lives.
        items: The iterator.
    """

    def __init__(self, portal: Portal, items: Items[T]) -> None:
        self._portal = portal
        self._items = items
        self._turn = asyncio.Lock()  # an interrupted `next` ends before `close` begins
        self._done = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        if self._done:
            raise StopIteration
        try:
            return self._portal.run(self._next())
        except StopAsyncIteration:
            self._done = True
            raise StopIteration from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop early and wait until everything has been let go; does nothing after the end."""
        if not self._done:
            self._done = True
            self._portal.run(self._close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._done:
            self._done = True
            self._portal.start(self._close())

    async def _next(self) -> T:
        async with self._turn:
            return await self._items.__anext__()

    async def _close(self) -> None:
        async with self._turn:
            await self._items.aclose()
