"""Many sources of one caller in flight at the same time, answered as they finish."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

from splitformer.errors import InternalError, InvalidArgumentError, SplitformerError
from splitformer.v1 import encoder_service_pb2 as pb

_PAUSE_SECONDS = 0.5

Answer = Callable[[pb.EncodeRequest], Awaitable[pb.EncodeResponse]]


class BatchStream:
    """One EncodeBatch.

    A source that fails is answered with its failure, and the others go on. While the engine's queue
    is full, the stream's sources wait. A source counts as in flight until its answer has been sent,
    so a caller who does not read stops being read.

    Args:
        answer: Answers one source.
        limit: Sources in flight at most.
    """

    def __init__(self, answer: Answer, limit: int) -> None:
        self._answer = answer
        self._slots = asyncio.Semaphore(limit)
        self._answers: asyncio.Queue[pb.EncodeBatchResponse | None] = asyncio.Queue()
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def run(
        self, requests: AsyncIterator[pb.EncodeBatchRequest]
    ) -> AsyncGenerator[pb.EncodeBatchResponse]:
        """Give the answers; leaving early drops what is in flight.

        Raises:
            InvalidArgumentError: BAD_TAG, a source has the tag of another that is in flight.
        """
        reader = asyncio.create_task(self._read(requests))
        reader.add_done_callback(lambda _: self._answers.put_nowait(None))
        try:
            while (answer := await self._answers.get()) is not None:
                yield answer
                self._slots.release()
            await reader
        finally:
            tasks = [reader, *self._tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, requests: AsyncIterator[pb.EncodeBatchRequest]) -> None:
        async for request in requests:
            await self._slots.acquire()
            if request.tag in self._tasks:
                raise InvalidArgumentError.of(
                    "tag", "must be unique among sources in flight", request.tag, reason="BAD_TAG"
                )
            self._tasks[request.tag] = asyncio.create_task(self._one(request))
        while self._tasks:
            await asyncio.wait(self._tasks.values())

    async def _one(self, request: pb.EncodeBatchRequest) -> None:
        response = pb.EncodeBatchResponse(tag=request.tag)
        try:
            response.response.CopyFrom(await self._patiently(request.request))
        except SplitformerError as error:
            response.failure.CopyFrom(_failure(error))
        del self._tasks[request.tag]
        self._answers.put_nowait(response)

    async def _patiently(self, request: pb.EncodeRequest) -> pb.EncodeResponse:
        while True:
            try:
                return await self._answer(request)
            except SplitformerError as error:
                if error.reason != "QUEUE_FULL":
                    raise
                await asyncio.sleep(min(error.retry_after or _PAUSE_SECONDS, _PAUSE_SECONDS))


def _failure(error: SplitformerError) -> pb.EncodeFailure:
    message = "internal fault" if isinstance(error, InternalError) else error.message
    return pb.EncodeFailure(code=int(error.code), reason=error.reason, message=message)
