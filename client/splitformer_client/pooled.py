"""Sources of many tasks on one stream, each task waiting for its own memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from splitformer.errors import SplitformerError
from splitformer.v1 import encoder_service_pb2 as pb
from splitformer_client.bulk import AsyncEncoding
from splitformer_client.memory import Memory
from splitformer_client.tasks import cancel


class PooledEncoder:
    """Encodes for many tasks over one EncodeBatch, which the first source begins.

    Args:
        start: Begins a stream for sources.
        drop: Lets a memory go that nobody waits for any more.

    Attributes:
        done: Sources answered so far, those that failed included.
    """

    def __init__(
        self,
        start: Callable[[AsyncIterator[pb.Source]], AsyncEncoding],
        drop: Callable[[Memory], object],
    ) -> None:
        self.done = 0
        self._start = start
        self._drop = drop
        self._sources: asyncio.Queue[pb.Source | None] = asyncio.Queue()
        self._waiting: dict[int, asyncio.Future[Memory]] = {}
        self._sent = 0
        self._reader: asyncio.Task[None] | None = None

    async def encode(self, source: pb.Source) -> Memory:
        """Encode one source, in the stream's turn.

        Raises:
            SplitformerError: Why it failed, or why the stream has ended.
        """
        if self._reader is None:
            self._reader = asyncio.create_task(self._read(self._start(_each(self._sources))))
        answer: asyncio.Future[Memory] = asyncio.get_running_loop().create_future()
        self._waiting[self._sent] = answer
        self._sent += 1
        self._sources.put_nowait(source)
        return await answer

    async def close(self) -> None:
        """End the stream, dropping what is in flight."""
        self._sources.put_nowait(None)
        if self._reader is not None:
            await cancel([self._reader])

    async def _read(self, encoding: AsyncEncoding) -> None:
        """Hand every memory to who waits for it; a stream that ends fails all who wait."""
        try:
            async for encoded in encoding:
                self.done += 1
                answer = self._waiting.pop(encoded.number)
                if not answer.done() and encoded.error is not None:
                    answer.set_exception(encoded.error)
                elif not answer.done():
                    answer.set_result(encoded.result())
                elif encoded.memory is not None:
                    self._drop(encoded.memory)
        except SplitformerError as error:
            self._begin_anew(error)
        finally:
            with contextlib.suppress(SplitformerError):
                await encoding.aclose()

    def _begin_anew(self, error: SplitformerError) -> None:
        """Fail all who wait; whoever comes after them gets a stream of their own."""
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(error)
        self._waiting.clear()
        self._sources.put_nowait(None)
        self._sources, self._sent, self._reader = asyncio.Queue(), 0, None


async def _each(sources: asyncio.Queue[pb.Source | None]) -> AsyncIterator[pb.Source]:
    while (source := await sources.get()) is not None:
        yield source
