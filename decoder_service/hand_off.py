"""Pulling a memory from the encoder that holds it, so that it never crosses the client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from grpc import aio

from decoder_service.allow_list import AllowList
from decoder_service.channels import EncoderChannels
from decoder_service.sharing import SharedMemories
from splitformer import statuses, tracing, wire
from splitformer.errors import (
    DataLossError,
    PermissionDeniedError,
    SplitformerError,
    UnavailableError,
    shown,
)
from splitformer.framing import Chunk, chunk_in
from splitformer.serving.interceptor import onward_metadata
from splitformer.v1 import encoder_service_pb2 as pb, tensor_pb2
from splitformer.v1.encoder_service_pb2_grpc import EncoderServiceStub

_ENCODER = "splitformer.v1.EncoderService"
_GONE = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,  # by an encoder that stops
)


class MemoryPuller:
    """Fetches memories from encoders on an allow-list.

    Args:
        allowed: Encoders that may be dialled.
        channels: Connections to encoders; ours from now on.
        seconds: Longest time for one memory.
        shared: Takes memories from encoders on this host; ours from now on.
        came: Called with the path that a memory came on, "shared" or "chunks".
    """

    def __init__(
        self,
        allowed: AllowList,
        channels: EncoderChannels,
        seconds: float,
        shared: SharedMemories,
        came: Callable[[str], object],
    ) -> None:
        self._allowed = allowed
        self._seconds = seconds
        self._channels = channels
        self._shared = shared
        self._came = came
        self._releases: set[asyncio.Task[None]] = set()

    def check_endpoint(self, endpoint: str) -> None:
        """PermissionDeniedError ENDPOINT_NOT_ALLOWED unless the endpoint is on the allow-list."""
        if not self._allowed.allows(endpoint):
            raise PermissionDeniedError(
                "reference.endpoint: must be an encoder that this decoder may pull from,"
                f" got {shown(endpoint)}",
                reason="ENDPOINT_NOT_ALLOWED",
            )

    async def pull(
        self,
        reference: tensor_pb2.MemoryReference,
        check_header: Callable[[tensor_pb2.MemoryHeader], None],
    ) -> tuple[tensor_pb2.MemoryHeader, wire.Buffer]:
        """Map or fetch a memory; return its header and packed bytes.

        Args:
            reference: Which, and from where; the endpoint has been checked.
            check_header: Called before any bytes are taken; raises if the memory does not fit.

        Raises:
            NotFoundError: MEMORY_NOT_FOUND.
            UnavailableError: ENCODER_UNREACHABLE.
            DataLossError: CORRUPT_CHUNK or MEMORY_TRUNCATED.
        """
        endpoint, memory_id, lease_id = (
            reference.endpoint,
            reference.memory_id,
            reference.lease.lease_id,
        )
        mapped = await self._shared.take(endpoint, memory_id, lease_id, check_header)
        if mapped is not None:
            self._came("shared")
            return mapped
        with tracing.onward(f"{_ENCODER}/FetchMemory") as span:
            metadata = onward_metadata() + span.metadata
            fetched = await self._fetch(reference, check_header, metadata)
        self._came("chunks")
        return fetched

    async def _fetch(
        self,
        reference: tensor_pb2.MemoryReference,
        check_header: Callable[[tensor_pb2.MemoryHeader], None],
        metadata: tuple[tuple[str, str], ...],
    ) -> tuple[tensor_pb2.MemoryHeader, bytearray]:
        channel = self._channels.to(reference.endpoint)
        fetch: Any = channel.unary_stream(
            f"/{_ENCODER}/FetchMemory", pb.FetchMemoryRequest.SerializeToString, _response
        )
        request = pb.FetchMemoryRequest(
            memory_id=reference.memory_id, lease_id=reference.lease.lease_id
        )
        call = fetch(request, timeout=self._seconds, metadata=metadata)

        def begins(begun: pb.FetchedHeader) -> None:
            self._shared.learn(reference.endpoint, begun.shared)
            check_header(begun.header)

        incoming = _Incoming(begins)
        try:
            async for response in call:
                incoming.take(response)
        except aio.AioRpcError as error:
            raise _translated(error, reference.endpoint) from error
        except asyncio.CancelledError as error:
            if _caller_has_gone():
                raise
            raise UnavailableError.stopped() from error
        finally:
            call.cancel()
            if incoming.begun is not None:
                self._release_later(channel, reference.memory_id, incoming.begun.lease.lease_id)
        return incoming.finish()

    async def close(self) -> None:
        """Finish releases under way and close all connections."""
        await asyncio.gather(*self._releases, return_exceptions=True)
        self._shared.close()
        await self._channels.close()

    def _release_later(self, channel: aio.Channel, memory_id: str, lease_id: str) -> None:
        """End our lease without making the session wait; if that fails, the lease expires."""

        async def release() -> None:
            request = pb.ReleaseMemoryRequest(memory_id=memory_id, lease_id=lease_id)
            with tracing.onward(f"{_ENCODER}/ReleaseMemory") as span:
                metadata = onward_metadata() + span.metadata
                stub = EncoderServiceStub(channel)
                await stub.ReleaseMemory(request, timeout=self._seconds, metadata=metadata)

        task = asyncio.ensure_future(release())
        self._releases.add(task)
        task.add_done_callback(self._released)

    def _released(self, task: asyncio.Task[None]) -> None:
        self._releases.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, so that it is not reported as forgotten


class _Incoming:
    """A memory that is being fetched.

    Args:
        begins: Called with what comes first, before any chunk is taken.

    Attributes:
        begun: What the fetch began with; None: nothing has come yet.
    """

    def __init__(self, begins: Callable[[pb.FetchedHeader], None]) -> None:
        self.begun: pb.FetchedHeader | None = None
        self._begins = begins
        self._assembler: wire.ChunkAssembler | None = None

    def take(self, response: Chunk | pb.FetchMemoryResponse) -> None:
        """Take in one message."""
        if isinstance(response, Chunk):
            self._add(response)
        elif response.HasField("header"):
            self.begun = response.header
            self._begins(self.begun)
            header = self.begun.header
            self._assembler = wire.ChunkAssembler(wire.packed_bytes(header.dtype, header.shape))
        elif response.HasField("chunk"):
            self._add(response.chunk)

    def finish(self) -> tuple[tensor_pb2.MemoryHeader, bytearray]:
        """Return header and bytes; DataLossError MEMORY_TRUNCATED if something is missing."""
        if self.begun is None or self._assembler is None:
            raise DataLossError("the encoder sent no header", reason="MEMORY_TRUNCATED")
        return self.begun.header, self._assembler.finish()

    def _add(self, chunk: wire.Chunk) -> None:
        """Take a chunk; one that comes before the header is passed over."""
        if self._assembler is not None:
            self._assembler.add(chunk)


def _response(data: bytes) -> Chunk | pb.FetchMemoryResponse:
    """Read a message of FetchMemory; a chunk is left where it lies."""
    return chunk_in(data) or pb.FetchMemoryResponse.FromString(data)


def _caller_has_gone() -> bool:
    """Tell a cancelled RPC of ours from one whose channel was closed under it."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _translated(error: aio.AioRpcError, endpoint: str) -> SplitformerError:
    """Put a failed fetch in terms of the decoder's caller."""
    code = error.code()
    if code in _GONE:
        return UnavailableError(
            f"reference.endpoint: encoder {endpoint!r} cannot be reached ({code.name.lower()})",
            reason="ENCODER_UNREACHABLE",
            retry_after=1.0,
        )
    trailer = error.trailing_metadata() or ()
    details = next((value for key, value in trailer if key == statuses.DETAILS_KEY), None)
    return statuses.error_of(
        code.value[0], error.details() or "", details if isinstance(details, bytes) else None
    )
