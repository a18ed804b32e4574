"""The way to one server: its channel, and RPCs whose failures are exceptions of ours."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, Self, TypeVar, cast

import grpc
import grpc.aio

from splitformer import errors, statuses
from splitformer.tracing import Span
from splitformer_client.scope import Metadata, Scope

Request = TypeVar("Request")
Answer = TypeVar("Answer")

_RESET = "RST_STREAM"
"""In the text of a call broken off by a proxy whose server has gone; ours always say why."""

_WRITE_FAILED = "Internal error from Core"
_EXPLANATION_SECONDS = 0.5

FAILURES = (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.CancelledError)
"""How calls of grpc.aio fail."""


class Link:
    """One server and the channel to it, opened when it is first needed.

    Args:
        name: What to call the server in messages, for example "encoder".
        address: gRPC target.
        options: Channel options.
        credentials: For TLS; None: without.
    """

    def __init__(
        self,
        name: str,
        address: str,
        options: Sequence[tuple[str, int | str]],
        credentials: grpc.ChannelCredentials | None,
    ) -> None:
        self.name = name
        self.address = address
        self._options = options
        self._credentials = credentials
        self._channel: grpc.aio.Channel | None = None
        self._closed = False
        self._calls: weakref.WeakSet[grpc.aio.Call] = weakref.WeakSet()
        self._endings: set[asyncio.Task[None]] = set()

    @property
    def channel(self) -> grpc.aio.Channel:
        """The channel; belongs to the event loop that first asked for it.

        Raises:
            FailedPreconditionError: CLIENT_CLOSED.
        """
        if self._closed:
            raise _closed("is closed")
        if self._channel is None:
            self._channel = self._open()
        return self._channel

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Answer],
        request: Request,
        scope: Scope,
        metadata: Metadata = (),
    ) -> Answer:
        """Run a unary RPC within what is left of the scope."""
        call: grpc.aio.UnaryUnaryCall[Request, Answer] = self._start(
            method, request, scope, metadata
        )
        with self.typed_errors(scope):
            return await call

    async def upload(
        self,
        method: grpc.aio.StreamUnaryMultiCallable[Request, Answer],
        requests: AsyncIterator[Request],
        scope: Scope,
    ) -> Answer:
        """Run a client-streaming RPC within what is left of the scope."""
        call: grpc.aio.StreamUnaryCall[Request, Answer] = self._start(method, requests, scope)
        verdict = _Verdict(call)
        with self.typed_errors(scope):
            try:
                return await call
            except grpc.aio.AioRpcError as error:
                raise await verdict.explained(error) from None
            except asyncio.CancelledError:  # by grpc.aio, if it cannot write the end
                if self._closed or _caller_is_cancelled():
                    raise
                text = f"{self.name} {self.address}: the call broke off"
                raise errors.UnavailableError(text) from None

    def stream(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[Request, Answer],
        request: Request,
        scope: Scope,
        metadata: Metadata = (),
    ) -> Incoming[Request, Answer]:
        """Start a server-streaming RPC within what is left of the scope."""
        return Incoming(self._start(method, request, scope, metadata), self, scope)

    def exchange(
        self,
        method: grpc.aio.StreamStreamMultiCallable[Request, Answer],
        requests: AsyncIterator[Request],
        scope: Scope,
        metadata: Metadata = (),
    ) -> Incoming[Request, Answer]:
        """Start a bidirectional RPC within what is left of the scope."""
        return Incoming(self._start(method, requests, scope, metadata), self, scope)

    @contextmanager
    def typed_errors(self, scope: Scope) -> Iterator[None]:
        """Turn failures of gRPC into exceptions of ours; a cancelled task stays cancelled."""
        try:
            yield
        except FAILURES as error:
            raise self.typed(error, scope) from None

    def typed(self, error: BaseException, scope: Scope) -> BaseException:
        """Return what to raise in place of one of `FAILURES`."""
        if isinstance(error, grpc.aio.AioRpcError):
            return self._error_of(error, scope)
        if isinstance(error, grpc.aio.UsageError):
            return _closed(str(error))
        if _caller_is_cancelled():
            return error
        return errors.CancelledError(f"{self.name} {self.address}: call cancelled")

    async def close(self) -> None:
        """Close the channel; RPCs that are running end as cancelled.

        Closing a channel of grpc.aio leaves running RPCs to their deadlines.
        """
        self._closed = True
        for call in list(self._calls):
            call.cancel()
        await asyncio.gather(*self._endings, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()

    def _start(self, method: Any, request: Any, scope: Scope, metadata: Metadata = ()) -> Any:
        """Start an RPC of any kind, with its span if there are traces."""
        name = method._method.decode().lstrip("/")  # the library has no public name for it
        span = scope.trace.below(name, "CLIENT")
        known = scope.metadata + metadata + span.metadata
        call = method(request, timeout=scope.rpc_timeout(), metadata=known)
        self._calls.add(call)
        if span.recording:
            call.add_done_callback(lambda done: self._end_span(done, span))
        return call

    def _end_span(self, call: grpc.aio.Call, span: Span) -> None:
        async def end() -> None:
            span.end((await call.code()).name)

        task = asyncio.ensure_future(end())
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    def _open(self) -> grpc.aio.Channel:
        if self._credentials is None:
            return grpc.aio.insecure_channel(self.address, options=self._options)
        return grpc.aio.secure_channel(self.address, self._credentials, options=self._options)

    def _error_of(self, error: grpc.aio.AioRpcError, scope: Scope) -> errors.SplitformerError:
        code, text = int(error.code().value[0]), error.details() or ""
        trailers = {key: value for key, value in error.trailing_metadata() or ()}  # noqa: C416
        details = trailers.get(statuses.DETAILS_KEY)
        if isinstance(details, bytes):
            return statuses.error_of(code, text, details)
        if _RESET in text:
            code = grpc.StatusCode.UNAVAILABLE.value[0]
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            text = f"no answer within {scope.timeout:g} s"
        text = text.rpartition("last error: ")[2].removeprefix("UNKNOWN: ")
        return statuses.error_of(code, f"{self.name} {self.address}: {text}")


class Incoming(Generic[Request, Answer]):
    """Messages that a server streams; letting go of the object cancels the RPC."""

    def __init__(
        self,
        call: grpc.aio.UnaryStreamCall[Request, Answer]
        | grpc.aio.StreamStreamCall[Request, Answer],
        link: Link,
        scope: Scope,
    ) -> None:
        self._call = call
        self._link = link
        self._scope = scope
        self._verdict = _Verdict(call)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Answer:
        try:  # without `typed_errors`, which takes longer than all else of ours here
            message = await self._call.read()
        except FAILURES as error:
            raise await self._typed(error) from None
        if message is grpc.aio.EOF:
            raise StopAsyncIteration
        return cast("Answer", message)

    async def _typed(self, error: BaseException) -> BaseException:
        if isinstance(error, grpc.aio.AioRpcError):
            error = await self._verdict.explained(error)
        return self._link.typed(error, self._scope)

    def __del__(self) -> None:
        self.cancel()

    def cancel(self) -> None:
        """Cancel the RPC; does nothing once it has ended."""
        self._call.cancel()


class _Verdict:
    """The server's status of a call that is written to.

    If a server ends an RPC while the client is writing, grpc.aio puts an INTERNAL of its own in
    place of the server's status, before that has come or after it.
    """

    def __init__(self, call: grpc.aio.Call) -> None:
        self._call = call
        self._error: grpc.aio.AioRpcError | None = None
        self._known = asyncio.Event()
        # Not the call's own add_done_callback, by which it would hold itself, and its connection
        # open, until garbage is collected.
        note = weakref.WeakMethod(self._note)
        inner = getattr(call, "_cython_call", call)
        inner.add_done_callback(lambda *_: (alive := note()) and alive())

    async def explained(self, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """Return the server's error where grpc.aio's own was raised; any other as it is."""
        if error.details() == _WRITE_FAILED:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._known.wait(), _EXPLANATION_SECONDS)
            return self._error or error
        return error

    def _note(self) -> None:
        """Called whenever the status is set; by now it can be read without waiting."""
        details = _at_once(self._call.details())
        if details != _WRITE_FAILED:
            code, trailers = map(_at_once, (self._call.code(), self._call.trailing_metadata()))
            self._error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailers, details)
            self._known.set()


def _at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


def _caller_is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _closed(why: str) -> errors.FailedPreconditionError:
    return errors.FailedPreconditionError(f"client: {why}", reason="CLIENT_CLOSED")
