"""How a handler's requests are read and its responses written, by the kind of its method.

Messages are counted, a malformed one is refused like any other bad request, and a response that is
serialised already is sent as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from splitformer.errors import InvalidArgumentError
from splitformer.serving.telemetry import MethodSeries

_LAST_WORD_SECONDS = 1.0

Answer = Callable[[Any, aio.ServicerContext[Any, Any]], Awaitable[Any]]
"""How a method's calls are answered, in itself."""


def wrapped(handler: Any, series: MethodSeries, around: Callable[[Answer], Answer]) -> Any:
    """Return a handler of the same kind with something around its answers.

    Args:
        handler: As a servicer was registered with.
        series: Where its messages are counted.
        around: Wraps how a call is answered.
    """
    asked, answered = (
        "stream" if streams else "unary"
        for streams in (handler.request_streaming, handler.response_streaming)
    )
    kind = f"{asked}_{answered}"
    answer = _streaming if handler.response_streaming else _unary
    return getattr(grpc, f"{kind}_rpc_method_handler")(
        around(answer(getattr(handler, kind), handler, series)),
        _forgiving(handler.request_deserializer),
        _ready(handler.response_serializer),
    )


def _unary(inner: Any, handler: Any, series: MethodSeries) -> Answer:
    async def answer(request: Any, context: aio.ServicerContext[Any, Any]) -> Any:
        if handler.request_streaming:
            requests = _Requests(context, series)
            async with _heard_out(requests):
                response = await inner(requests, context)
        else:
            series.received.inc()
            response = await inner(_well_formed(request), context)
        series.sent.inc()
        return response

    return answer


def _streaming(inner: Any, handler: Any, series: MethodSeries) -> Answer:
    async def answer(request: Any, context: aio.ServicerContext[Any, Any]) -> None:
        write, sent = context.write, series.sent
        if handler.request_streaming:
            asked = _Requests(context, series)
        else:
            series.received.inc()
            asked = _well_formed(request)
        async with aclosing(inner(asked, context)) as responses:
            async for response in responses:
                await write(response)
                sent.value += 1

    return answer


@asynccontextmanager
async def _heard_out(requests: Any) -> AsyncIterator[None]:
    """Wait a moment for the end of a caller's stream before the answer or the error goes out.

    To proxies (HAProxy is one) an answer before that end is a call that broke off.
    """
    try:
        yield
    except Exception:
        await _end_of(requests)
        raise
    await _end_of(requests)


async def _end_of(requests: Any) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(_LAST_WORD_SECONDS):
            async for _ in requests:
                pass


class _Requests:
    """What a caller streams up, counted; read off the call itself, without gRPC's generator."""

    def __init__(self, context: aio.ServicerContext[Any, Any], series: MethodSeries) -> None:
        self._read = context.read
        self._received = series.received
        self._ended = False

    def __aiter__(self) -> _Requests:
        return self

    async def __anext__(self) -> Any:
        request = aio.EOF if self._ended else await self._read()
        if request is aio.EOF:
            self._ended = True
            raise StopAsyncIteration
        self._received.inc()
        return _well_formed(request)


def _forgiving(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Let a malformed message through as None, so that it is answered where all others are."""

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return None

    return read


def _ready(serialize: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """Let a message through that is serialised already."""

    def write(message: Any) -> bytes:
        return message if isinstance(message, bytes) else serialize(message)

    return write


def _well_formed(request: Any) -> Any:
    if request is None:
        raise InvalidArgumentError(
            "request: cannot be parsed as the method's message type", reason="MALFORMED_REQUEST"
        )
    return request
