"""What happens around every RPC: request id, counting, timing, logging, exceptions to statuses.

Servicers raise the exceptions of `splitformer.errors` and nothing else; this is the only place
where they become statuses. A fault of ours becomes INTERNAL with the request id, and the log has
the rest.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc
from grpc import aio

from splitformer import wire
from splitformer.errors import (
    Code,
    InternalError,
    SplitformerError,
    UnavailableError,
    UnimplementedError,
)
from splitformer.serving.logs import log
from splitformer.serving.telemetry import Telemetry

REQUEST_ID_KEY = "splitformer-request-id"
"""Metadata with the caller's id for a request; we make one up if there is none."""

_OURS = "splitformer."
_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}
_logger = logging.getLogger("splitformer.rpc")


@dataclass(slots=True)
class _Call:
    """One RPC while it runs."""

    service: str
    method: str
    request_id: str
    started: float = field(default_factory=time.perf_counter)
    code: Code = Code.OK
    reason: str = ""

    @property
    def labels(self) -> tuple[str, str]:
        return self.service, self.method


class RpcInterceptor(aio.ServerInterceptor):
    """Wraps every handler.

    Attributes:
        ready: False until warm-up is done; until then our services answer UNAVAILABLE.
        in_flight: RPCs of our services that are running.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
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
        if handler is None:
            return None
        _, service, method = handler_call_details.method.split("/")
        metadata = dict(handler_call_details.invocation_metadata or ())
        request_id = str(metadata.get(REQUEST_ID_KEY) or uuid.uuid4().hex)
        return self._wrap(handler, lambda: _Call(service, method, request_id))

    def _wrap(self, handler: Any, new_call: Callable[[], _Call]) -> Any:
        serializers = (handler.request_deserializer, handler.response_serializer)
        if handler.response_streaming:
            kind = "stream_stream" if handler.request_streaming else "unary_stream"
            behaviour = self._streaming(getattr(handler, kind), handler, new_call)
        else:
            kind = "stream_unary" if handler.request_streaming else "unary_unary"
            behaviour = self._unary(getattr(handler, kind), handler, new_call)
        return getattr(grpc, f"{kind}_rpc_method_handler")(behaviour, *serializers)

    def _unary(self, inner: Any, handler: Any, new_call: Callable[[], _Call]) -> Any:
        async def behaviour(request: Any, context: aio.ServicerContext[Any, Any]) -> Any:
            call = new_call()
            async with self._around(call, context):
                response = await inner(self._counted(request, handler, call), context)
                self._telemetry.sent.labels(*call.labels).inc()
                return response

        return behaviour

    def _streaming(self, inner: Any, handler: Any, new_call: Callable[[], _Call]) -> Any:
        async def behaviour(request: Any, context: aio.ServicerContext[Any, Any]) -> Any:
            call = new_call()
            async with self._around(call, context):
                sent = self._telemetry.sent.labels(*call.labels)
                async for response in inner(self._counted(request, handler, call), context):
                    yield response
                    sent.inc()

        return behaviour

    def _counted(self, request: Any, handler: Any, call: _Call) -> Any:
        received = self._telemetry.received.labels(*call.labels)
        if handler.request_streaming:
            return _counting(request, received.inc)
        received.inc()
        return request

    @asynccontextmanager
    async def _around(
        self, call: _Call, context: aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[None]:
        ours = call.service.startswith(_OURS)
        self._telemetry.started.labels(*call.labels).inc()
        self.in_flight += ours
        try:
            if ours and not self.ready:
                raise UnavailableError(
                    "the service is still starting", reason="NOT_READY", retry_after=1.0
                )
            yield
        except SplitformerError as error:
            await _abort(call, context, error)
        except NotImplementedError:
            message = f"{call.method}: is not offered by this version"
            await _abort(call, context, UnimplementedError(message))
        except (asyncio.CancelledError, GeneratorExit):
            remaining = context.time_remaining()
            late = remaining is not None and remaining <= 0  # type: ignore[redundant-expr]
            call.code = Code.DEADLINE_EXCEEDED if late else Code.CANCELLED
            raise
        except Exception:
            log(_logger, logging.ERROR, "fault", request_id=call.request_id, method=call.method)
            _logger.exception("fault in %s, request %s", call.method, call.request_id)
            message = f"internal fault; the log has it under request id {call.request_id}"
            await _abort(call, context, InternalError(message))
        finally:
            self.in_flight -= ours
            self._ended(call, ours)

    def _ended(self, call: _Call, ours: bool) -> None:
        seconds = time.perf_counter() - call.started
        self._telemetry.handling_seconds.labels(*call.labels).observe(seconds)
        self._telemetry.handled.labels(*call.labels, call.code.name, call.reason).inc()
        log(
            _logger,
            logging.INFO if ours else logging.DEBUG,
            "rpc",
            method=call.method,
            request_id=call.request_id,
            code=call.code.name,
            reason=call.reason,
            seconds=round(seconds, 6),
        )


async def _counting(requests: Any, count: Callable[[], None]) -> AsyncIterator[Any]:
    async for request in requests:
        count()
        yield request


async def _abort(
    call: _Call, context: aio.ServicerContext[Any, Any], error: SplitformerError
) -> NoReturn:
    call.code, call.reason = error.code, error.reason
    details = wire.status_of(error).SerializeToString()
    trailer = ((wire.STATUS_DETAILS_KEY, details),)
    await context.abort(_STATUS_CODES[int(error.code)], error.message, trailer)
    raise AssertionError("abort returns only by raising")
