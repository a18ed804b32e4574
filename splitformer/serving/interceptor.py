"""What happens around our RPCs: request id, counting, timing, logging, exceptions to statuses.

Servicers raise the exceptions of `splitformer.errors` and nothing else; this is the only place
where they become statuses. A fault of ours becomes INTERNAL with the request id, and the log has
the rest.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import grpc
from grpc import aio

from splitformer import statuses, tracing
from splitformer.errors import (
    Code,
    InternalError,
    SplitformerError,
    UnavailableError,
    UnimplementedError,
)
from splitformer.serving import handlers
from splitformer.serving.ids import fresh_ids
from splitformer.serving.logs import log
from splitformer.serving.telemetry import MethodSeries, Telemetry

REQUEST_ID_KEY = "splitformer-request-id"
"""Metadata with the caller's id for a request; we make one up if there is none."""

_request_id: ContextVar[str] = ContextVar("request_id", default="")

_OURS = "splitformer."
_LONGEST_REQUEST_ID = 128
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
            around = partial(self._around, _Method(service, method, series, self._ids))
            wrapped = handlers.wrapped(handler, series, around)
            self._wrapped[handler_call_details.method] = handler, wrapped
        return wrapped

    def _around(self, method: _Method, answer: handlers.Answer) -> handlers.Answer:
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
    await context.abort(_STATUS_CODES[int(error.code)], statuses.short_message(error), trailer)
    raise AssertionError("abort returns only by raising")
