"""Pulling a memory from the encoder that holds it, so that it never crosses the client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc
from grpc import aio

from decoder_service.allow_list import AllowList
from decoder_service.channels import EncoderChannels
from splitformer import tracing, wire
from splitformer.errors import (
    DataLossError,
    PermissionDeniedError,
    SplitformerError,
    UnavailableError,
    shown,
)
from splitformer.serving.interceptor import onward_metadata
from splitformer.v1 import encoder_service_pb2 as pb, tensor_pb2
from splitformer.v1.encoder_service_pb2_grpc import EncoderServiceStub

if TYPE_CHECKING:
    from splitformer.v1.encoder_service_pb2_grpc import EncoderServiceAsyncStub

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
    """

    def __init__(self, allowed: AllowList, channels: EncoderChannels, seconds: float) -> None:
        self._allowed = allowed
        self._seconds = seconds
        self._channels = channels
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
    ) -> tuple[tensor_pb2.MemoryHeader, bytearray]:
        """Fetch a memory; return its header and packed bytes.

        Args:
            reference: Which, and from where; the endpoint has been checked.
            check_header: Called before any bytes are taken; raises if the memory does not fit.

        Raises:
            NotFoundError: MEMORY_NOT_FOUND.
            UnavailableError: ENCODER_UNREACHABLE.
            DataLossError: CORRUPT_CHUNK or MEMORY_TRUNCATED.
        """
        with tracing.onward(f"{_ENCODER}/FetchMemory") as span:
            return await self._pull(reference, check_header, onward_metadata() + span.metadata)

    async def _pull(
        self,
        reference: tensor_pb2.MemoryReference,
        check_header: Callable[[tensor_pb2.MemoryHeader], None],
        metadata: tuple[tuple[str, str], ...],
    ) -> tuple[tensor_pb2.MemoryHeader, bytearray]:
        stub = EncoderServiceStub(self._channels.to(reference.endpoint))
        request = pb.FetchMemoryRequest(memory_id=reference.memory_id)
        call = stub.FetchMemory(request, timeout=self._seconds, metadata=metadata)
        lease: tensor_pb2.Lease | None = None
        assembler: wire.ChunkAssembler | None = None
        header = tensor_pb2.MemoryHeader()
        try:
            async for response in call:
                part = response.WhichOneof("part")
                if part == "header":
                    header, lease = response.header.header, response.header.lease
                    check_header(header)
                    size = wire.packed_bytes(header.dtype, header.shape)
                    assembler = wire.ChunkAssembler(size)
                elif part == "chunk" and assembler is not None:
                    assembler.add(response.chunk)
        except aio.AioRpcError as error:
            raise _translated(error, reference.endpoint) from error
        except asyncio.CancelledError as error:
            if _caller_has_gone():
                raise
            raise UnavailableError.stopped() from error
        finally:
            call.cancel()
            if lease is not None:
                self._release_later(stub, reference.memory_id, lease.lease_id)
        if assembler is None:
            raise DataLossError("the encoder sent no header", reason="MEMORY_TRUNCATED")
        return header, assembler.finish()

    async def close(self) -> None:
        """Finish releases under way and close all connections."""
        await asyncio.gather(*self._releases, return_exceptions=True)
        await self._channels.close()

    def _release_later(self, stub: EncoderServiceAsyncStub, memory_id: str, lease_id: str) -> None:
        """End our lease without making the session wait; if that fails, the lease expires."""

        async def release() -> None:
            request = pb.ReleaseMemoryRequest(memory_id=memory_id, lease_id=lease_id)
            with tracing.onward(f"{_ENCODER}/ReleaseMemory") as span:
                metadata = onward_metadata() + span.metadata
                await stub.ReleaseMemory(request, timeout=self._seconds, metadata=metadata)

        task = asyncio.ensure_future(release())
        self._releases.add(task)
        task.add_done_callback(self._released)

    def _released(self, task: asyncio.Task[None]) -> None:
        self._releases.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, so that it is not reported as forgotten


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
    details = next((value for key, value in trailer if key == wire.STATUS_DETAILS_KEY), None)
    return wire.error_of(
        code.value[0], error.details() or "", details if isinstance(details, bytes) else None
    )
