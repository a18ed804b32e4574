"""Many sources on one stream: hundreds in flight, memories as they finish."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from splitformer import statuses
from splitformer.errors import InvalidArgumentError, SplitformerError
from splitformer.v1 import encoder_service_pb2 as pb
from splitformer_client.link import Incoming
from splitformer_client.memory import Memory

T = TypeVar("T")

Source = str | Sequence[int]
Sources = Iterable[Source] | AsyncIterable[Source]
Exchange = Callable[
    [AsyncIterator[pb.EncodeBatchRequest]], Incoming[pb.EncodeBatchRequest, pb.EncodeBatchResponse]
]
"""Starts the RPC."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """What became of one source of many.

    Attributes:
        number: Its place among the sources, from 0.
        memory: Its memory, unless it failed.
        error: Why it failed, or None.
    """

    number: int
    memory: Memory | None
    error: SplitformerError | None = None

    def result(self) -> Memory:
        """Return the memory, or raise the error."""
        if self.error is not None:
            raise self.error
        assert self.memory is not None
        return self.memory


class AsyncEncoding:
    """Iterates over what became of many sources, in the order in which they finish.

    Sources are taken from their iterator only as fast as answers are read. Closing early drops what
    is in flight.

    Args:
        exchange: Starts the RPC.
        sources: What to encode, read while answers come in.
        request: Makes the request for one source.
        in_flight: Sources without an answer at most.

    Attributes:
        sent: Sources sent so far.
        done: Sources answered so far, those that failed included.
        failed: Sources that failed so far.
    """

    def __init__(
        self,
        exchange: Exchange,
        sources: Iterable[T] | AsyncIterable[T],
        request: Callable[[T], pb.EncodeRequest],
        in_flight: int,
    ) -> None:
        if in_flight < 1:
            raise InvalidArgumentError.of("in_flight", "must be at least 1", in_flight)
        self.sent = self.done = self.failed = 0
        self._requests_made = (request(source) async for source in _each(sources))
        self._slots = asyncio.Semaphore(in_flight)
        self._fault: Exception | None = None
        self._incoming = exchange(self._requests())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Encoded:
        try:
            answer = await self._incoming.__anext__()
        except (StopAsyncIteration, SplitformerError):
            if self._fault is not None:
                raise self._fault from None
            raise
        self._slots.release()
        self.done += 1
        self.failed += answer.HasField("failure")
        return _encoded(answer)

    async def aclose(self) -> None:
        """Drop what is in flight."""
        self._incoming.cancel()

    async def _requests(self) -> AsyncIterator[pb.EncodeBatchRequest]:
        """Send sources while there are slots; an error of theirs ends the stream and is kept."""
        try:
            async for request in self._requests_made:
                await self._slots.acquire()
                self.sent += 1
                yield pb.EncodeBatchRequest(tag=self.sent - 1, request=request)
        except Exception as error:
            self._fault = error
            self._incoming.cancel()


def _encoded(answer: pb.EncodeBatchResponse) -> Encoded:
    if answer.HasField("failure"):
        failure = answer.failure
        error = statuses.error_of(failure.code, failure.message)
        error.reason = failure.reason or error.reason
        return Encoded(answer.tag, None, error)
    return Encoded(answer.tag, Memory.of_answer(answer.response))


async def _each(items: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
