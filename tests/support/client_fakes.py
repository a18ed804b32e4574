"""Servers that misbehave in ways real ones do not, for tests of the client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from grpc import aio

from splitformer import statuses
from splitformer.errors import SplitformerError
from splitformer.v1 import decoder_service_pb2 as pb, encoder_service_pb2, model_pb2, tensor_pb2
from splitformer.v1.decoder_service_pb2_grpc import (
    DecoderServiceServicer,
    add_DecoderServiceServicer_to_server,
)
from splitformer.v1.encoder_service_pb2_grpc import (
    EncoderServiceServicer,
    add_EncoderServiceServicer_to_server,
)

Context = aio.ServicerContext[Any, Any]
_CODES = {code.value[0]: code for code in grpc.StatusCode}


async def abort(context: Context, error: SplitformerError) -> None:
    """End an RPC as our servers do."""
    details = statuses.status_of(error).SerializeToString()
    await context.abort(_CODES[int(error.code)], error.message, ((statuses.DETAILS_KEY, details),))


class Recorded:
    """What a fake was asked: method, request, metadata."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any, dict[str, str]]] = []
        self.cancelled: list[str] = []

    def note(self, method: str, request: Any, context: Context) -> None:
        """Remember a call."""
        metadata = {str(key): str(value) for key, value in context.invocation_metadata() or ()}
        self.calls.append((method, request, metadata))

    def requests(self, method: str) -> list[Any]:
        """Return the requests of one method."""
        return [request for name, request, _ in self.calls if name == method]

    def metadata(self, method: str) -> list[dict[str, str]]:
        """Return the metadata of one method's calls."""
        return [metadata for name, _, metadata in self.calls if name == method]


class FakeEncoder(EncoderServiceServicer):
    """Encodes every source to two rows of ones, and keeps count of leases.

    Attributes:
        language_on_decoder: Whether its memories are bound to a target language.
        failures: Errors that the next calls of Encode end with.
        endpoint: Where it says its memories are.
        delay: Seconds that Encode takes.
        released: Ids of the leases that were ended.
    """

    def __init__(self, name: str = "encoder") -> None:
        self.name = name
        self.language_on_decoder = True
        self.failures: list[SplitformerError] = []
        self.endpoint = "nowhere.invalid:1"
        self.delay = 0.0
        self.released: list[str] = []
        self.recorded = Recorded()

    async def Encode(self, request: Any, context: Context) -> Any:
        self.recorded.note("Encode", request, context)
        number = str(len(self.recorded.requests("Encode")))
        await asyncio.sleep(self.delay)
        if self.failures:
            await abort(context, self.failures.pop(0))
        header = tensor_pb2.MemoryHeader(
            kind=tensor_pb2.MEMORY_KIND_SEQUENCE,
            model=self.name,
            dtype=tensor_pb2.DATA_TYPE_F16,
            shape=(2, 4),
            target_language=request.source.target_language,
        )
        return encoder_service_pb2.EncodeResponse(
            reference=tensor_pb2.MemoryReference(
                memory_id=f"memory-{number}",
                endpoint=self.endpoint,
                header=header,
                lease=tensor_pb2.Lease(lease_id=f"lease-{number}", remaining_ms=30_000),
            )
        )

    async def ReleaseMemory(self, request: Any, context: Context) -> Any:
        self.recorded.note("ReleaseMemory", request, context)
        self.released.append(request.lease_id)
        return encoder_service_pb2.ReleaseMemoryResponse()

    async def GetModelInfo(self, request: Any, context: Context) -> Any:
        self.recorded.note("GetModelInfo", request, context)
        return encoder_service_pb2.EncoderServiceGetModelInfoResponse(
            model=model_pb2.ModelInfo(name=self.name, language_on_decoder=self.language_on_decoder)
        )


class FakeDecoder(DecoderServiceServicer):
    """Opens sessions and says what the test tells it to.

    Attributes:
        failures: Errors that the next openings end with.
        reply: What openings are answered with; `session_id` is filled in.
        generate: The body of Generate.
        data: The bytes that were uploaded, one entry per opening that was answered.
        closed: Ids of the sessions that were let go.
    """

    def __init__(self) -> None:
        self.failures: list[SplitformerError] = []
        self.reply = pb.OpenSessionResponse()
        self.generate: Callable[[Any, Context], AsyncIterator[Any]] = say("a", "b")
        self.data: list[bytes] = []
        self.closed: list[str] = []
        self.recorded = Recorded()

    async def OpenSession(self, request_iterator: Any, context: Context) -> Any:
        header, data = None, b""
        async for request in request_iterator:
            if header is None:
                header = request.header
                self.recorded.note("OpenSession", header, context)
                if self.failures:  # after the first message, as a server that goes away does
                    await abort(context, self.failures.pop(0))
            else:
                data += request.chunk.data
        self.data.append(data)
        reply = pb.OpenSessionResponse()
        reply.CopyFrom(self.reply)
        reply.session_id = f"session-{len(self.data)}"
        return reply

    async def Generate(self, request: Any, context: Context) -> AsyncIterator[Any]:
        self.recorded.note("Generate", request, context)
        try:
            async for message in self.generate(request, context):
                yield message
        except (asyncio.CancelledError, GeneratorExit):
            self.recorded.cancelled.append(request.session_id)
            raise

    async def GetSession(self, request: Any, context: Context) -> Any:
        self.recorded.note("GetSession", request, context)
        return pb.GetSessionResponse(session_id=request.session_id, state=pb.SESSION_STATE_IDLE)

    async def CloseSession(self, request: Any, context: Context) -> Any:
        self.recorded.note("CloseSession", request, context)
        self.closed.append(request.session_id)
        return pb.CloseSessionResponse(freed_bytes=64)


def token(index: int, text: str) -> Any:
    """Return the message of one token."""
    return pb.GenerateResponse(tokens=pb.Tokens(tokens=[pb.Token(index=index, text=text)]))


def end() -> Any:
    """Return the message of an end."""
    return pb.GenerateResponse(end=pb.End(reason=pb.END_REASON_EOS))


def say(*texts: str) -> Callable[[Any, Context], AsyncIterator[Any]]:
    """Return a body of Generate that sends these tokens and the end."""

    async def body(request: Any, context: Context) -> AsyncIterator[Any]:
        for index, text in enumerate(texts):
            yield token(index, text)
        yield end()

    return body


async def say_without_end(request: Any, context: Context) -> AsyncIterator[Any]:
    """A body of Generate that ends as if all were well, but says no end."""
    yield token(0, "a")


async def say_for_ever(request: Any, context: Context) -> AsyncIterator[Any]:
    """A body of Generate that does not end."""
    index = 0
    while True:
        yield token(index, "a")
        index += 1
        await asyncio.sleep(0.001)


async def serve(*servicers: Any) -> tuple[aio.Server, str]:
    """Start a server on a free port; returns it and its address."""
    server = aio.server()
    for servicer in servicers:
        if isinstance(servicer, FakeEncoder):
            add_EncoderServiceServicer_to_server(servicer, server)
        else:
            add_DecoderServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, f"127.0.0.1:{port}"


async def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until a condition holds; fails if it never does."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it never came true"
        await asyncio.sleep(0.005)
