"""Sources in, results out in the same order, several in flight."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from splitformer_client.tasks import cancel

T = TypeVar("T")

STDIN = 0
"""File descriptor of the standard input."""

READ_AHEAD = 64
"""Most lines that are read before they are asked for."""


@dataclass(frozen=True, slots=True)
class Input:
    """Where the sources come from.

    Attributes:
        texts: Sources from the command line.
        files: Files with a source per line, if there are no texts; none: the standard input.
    """

    texts: list[str]
    files: list[Path]

    @property
    def is_lines(self) -> bool:
        """True if there is a source per line of a file."""
        return not self.texts

    def sources(self) -> AsyncGenerator[str]:
        """Give the sources."""
        return given(self.texts) if self.texts else pumped(read_lines(self.files or [STDIN]))

    def total(self) -> int | None:
        """Count the sources; None if that takes reading what can be read only once."""
        if self.texts:
            return len(self.texts)
        if not self.files or not all(file.is_file() for file in self.files):
            return None
        return sum(1 for _ in read_lines(self.files))


def read_lines(sources: Sequence[Path | int]) -> Iterator[str]:
    """Give the lines of files or file descriptors, one after the other, without their ends.

    Raises:
        OSError: A file cannot be read.
        UnicodeDecodeError: A file is not UTF-8.
    """
    for source in sources:
        with open(source, encoding="utf-8-sig", closefd=source != STDIN) as file:
            for line in file:
                yield line.rstrip("\n")


async def given(texts: Sequence[str]) -> AsyncGenerator[str]:
    """Give texts that are there already."""
    for text in texts:
        yield text


async def pumped(lines: Iterator[str]) -> AsyncGenerator[str]:
    """Give lines that a thread reads, so that waiting for input holds nothing up.

    The thread is a daemon: one that is blocked in reading does not keep the process alive.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[str | Exception | None] = asyncio.Queue()
    room = threading.Semaphore(READ_AHEAD)

    def put(item: str | Exception | None) -> None:
        room.acquire()
        loop.call_soon_threadsafe(queue.put_nowait, item)

    threading.Thread(target=_pump, args=(lines, put), daemon=True).start()
    while (item := await queue.get()) is not None:
        room.release()
        if isinstance(item, Exception):
            raise item
        yield item


def _pump(lines: Iterator[str], put: Callable[[str | Exception | None], None]) -> None:
    """Read until the end, an error, or until nobody listens any more."""
    with contextlib.suppress(RuntimeError):  # the event loop is closed
        try:
            for line in lines:
                put(line)
            put(None)
        except (OSError, ValueError) as error:
            put(error)


async def in_order(
    lines: AsyncIterator[str], work: Callable[[str], Coroutine[Any, Any, T]], in_flight: int
) -> AsyncGenerator[tuple[str, T]]:
    """Work on lines side by side and give each with its result, in the order of the lines.

    Args:
        lines: Where they come from; they are not read far ahead.
        work: What to do with one.
        in_flight: Most lines being worked on, results waiting for their turn included.
    """
    slots = asyncio.Semaphore(in_flight)
    begun: asyncio.Queue[tuple[str, asyncio.Task[T]] | None] = asyncio.Queue()
    running: set[asyncio.Task[T]] = set()

    async def begin() -> None:
        try:
            async for line in lines:
                await slots.acquire()
                task = asyncio.create_task(work(line))
                running.add(task)
                begun.put_nowait((line, task))
        finally:
            begun.put_nowait(None)

    reader = asyncio.create_task(begin())
    try:
        while (next_one := await begun.get()) is not None:
            line, task = next_one
            yield line, await task
            running.discard(task)
            slots.release()
        await reader
    finally:
        await cancel([reader, *running])
