"""What happens around our RPCs: request id, counting, timing, logging, exceptions to statuses.

Servicers raise the exceptions of `splitformer.errors` and nothing else; this is the only place
where they become statuses. A fault of ours becomes INTERNAL with the request id, and the log has
the rest.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from splitformer import statuses, tracing
from splitformer.errors import (
    Code,
    InternalError,
    InvalidArgumentError,
    SplitformerError,
    UnavailableError,
    UnimplementedError,
)
from splitformer.serving.ids import fresh_ids
from splitformer.serving.logs import log
from splitformer.serving.telemetry import MethodSeries, Telemetry

REQUEST_ID_KEY = "splitformer-request-id"
"""Metadata with the caller's id for a request; we make one up if there is none."""

_request_id: ContextVar[str] = ContextVar("request_id", default="")

_OURS = "splitformer."
_LONGEST_REQUEST_ID = 128
_LAST_WORD_SECONDS = 1.0
_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}
_logger = logging.getLogger("splitformer.rpc")


def onward_metadata() -> tuple[tuple[str, str], ...]:
    """Metadata for calls made on behalf of the RPC that is running: they share its request id."""
    request_id = _request_id.get()
    return ((REQUEST_ID_KEY, request_id),) if request_id else ()


@dataclass(frozen=True, slots=True)
class _Method:
    """What is the same for all calls of one method."""

    service: str
    name: str
    series: MethodSeries
    ids: Iterator[str]

    def begin(self, context: aio.ServicerContext[Any, Any]) -> _Call:
        """Return a call that has just come in."""
        metadata = dict(context.invocation_metadata() or ())
        given = str(metadata.get(REQUEST_ID_KEY, ""))
        request_id = given[:_LONGEST_REQUEST_ID] or next(self.ids)
        _request_id.set(request_id)
        span = tracing.serve(f"{self.service}/{self.name}", metadata)
        span.note(request_id=request_id)
        self.series.started.inc()
        return _Call(self, request_id, time.perf_counter(), span)


@dataclass(slots=True)
class _Call:
    """One RPC while it runs."""

    method: _Method
    request_id: str
    started: float
    span: tracing.Span
    code: Code = Code.OK
    reason: str = ""


Answer = Callable[[Any, aio.ServicerContext[Any, Any]], Awaitable[Any]]
"""How a method's calls are answered, in itself."""


class RpcInterceptor(aio.ServerInterceptor):
    """Wraps every handler of our services; health and reflection are left alone.

    Attributes:
        ready: False until warm-up is done; until then every RPC is UNAVAILABLE.
        in_flight: RPCs that are running.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._wrapped: dict[str, tuple[Any, Any]] = {}
        self._ids = fresh_ids()
        self.ready = False
        self.in_flight = 0

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the handler with everything around it; None where there is no such method."""
        handler = await continuation(handler_call_details)
        service, _, method = handler_call_details.method.lstrip("/").rpartition("/")
        if handler is None or not service.startswith(_OURS):
            return handler
        inner, wrapped = self._wrapped.get(handler_call_details.method, (None, None))
        if inner is not handler:  # another server of ours may have another one, or none
            series = self._telemetry.of_method(service, method)
            wrapped = self._wrap(handler, _Method(service, method, series, self._ids))
            self._wrapped[handler_call_details.method] = handler, wrapped
        return wrapped

    def _wrap(self, handler: Any, method: _Method) -> Any:
        serializers = (
            _forgiving(handler.request_deserializer),
            _ready(handler.response_serializer),
        )
        asked, answered = (
            "stream" if streaming else "unary"
            for streaming in (handler.request_streaming, handler.response_streaming)
        )
        kind = f"{asked}_{answered}"
        answer = _streaming if handler.response_streaming else _unary
        behaviour = self._around(method, answer(getattr(handler, kind), handler, method.series))
        return getattr(grpc, f"{kind}_rpc_method_handler")(behaviour, *serializers)

    def _around(self, method: _Method, answer: Answer) -> Answer:
        async def behaviour(request: Any, context: aio.ServicerContext[Any, Any]) -> Any:
            call = method.begin(context)
            self.in_flight += 1
            try:
                self._check_ready()
                return await answer(request, context)
            except (asyncio.CancelledError, GeneratorExit):
                remaining = context.time_remaining()
                late = remaining is not None and remaining <= 0  # type: ignore[redundant-expr]
                call.code = Code.DEADLINE_EXCEEDED if late else Code.CANCELLED
                raise
            except Exception as error:
                await _abort(call, context, _for_caller(call, context, error))
            finally:
                self.in_flight -= 1
                _ended(call)

        return behaviour

    def _check_ready(self) -> None:
        if not self.ready:
            raise UnavailableError(
                "the service is still starting", reason="NOT_READY", retry_after=1.0
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


def _ended(call: _Call) -> None:
    seconds, method = time.perf_counter() - call.started, call.method
    method.series.ended(call.code, call.reason, seconds)
    call.span.end(call.code.name, call.reason)
    log(
        _logger,
        logging.INFO,
        "rpc",
        method=method.name,
        request_id=call.request_id,
        code=call.code.name,
        reason=call.reason,
        seconds=round(seconds, 6),
    )


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
            "request: is no message of the method's type", reason="MALFORMED_REQUEST"
        )
    return request


def _for_caller(
    call: _Call, context: aio.ServicerContext[Any, Any], error: Exception
) -> SplitformerError:
    """Return what the caller is told; a fault of ours is logged and told by request id only."""
    if isinstance(error, SplitformerError) and not isinstance(error, InternalError):
        return error
    if isinstance(error, NotImplementedError) and context.code() == grpc.StatusCode.UNIMPLEMENTED:
        return UnimplementedError(f"{call.method.name}: is not offered by this version")
    fault, method = type(error).__name__, call.method.name
    fields = {"request_id": call.request_id, "method": method, "fault": fault}
    traceback = None if isinstance(error, InternalError) else error  # engines log their own
    _logger.error("fault", exc_info=traceback, extra={"fields": fields})
    return InternalError(f"internal fault; the log has it under request id {call.request_id}")


async def _abort(
    call: _Call, context: aio.ServicerContext[Any, Any], error: SplitformerError
) -> NoReturn:
    call.code, call.reason = error.code, error.reason
    details = statuses.status_of(error).SerializeToString()
    trailer = ((statuses.DETAILS_KEY, details),)
    await context.abort(_STATUS_CODES[int(error.code)], error.message, trailer)
    raise AssertionError("abort returns only by raising")
