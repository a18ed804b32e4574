"""A memory that a caller streams up, chunk by chunk, behind the header of an opening."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from decoder_service.beginnings import CheckHeader
from splitformer import wire
from splitformer.errors import DeadlineExceededError, InvalidArgumentError
from splitformer.v1 import decoder_service_pb2 as pb, tensor_pb2

Requests = AsyncIterator[pb.OpenSessionRequest] | AsyncIterator[pb.DecodeRequest]
"""What follows a header: chunks."""


class Upload:
    """One memory on its way up.

    Args:
        header: What it is.
        requests: Where its chunks come from.
        seconds: To wait for each chunk, and for the end, at most.
    """

    def __init__(self, header: tensor_pb2.MemoryHeader, requests: Requests, seconds: float) -> None:
        self._header = header
        self._requests = requests
        self._seconds = seconds

    async def take(self, check: CheckHeader) -> tuple[tensor_pb2.MemoryHeader, bytearray]:
        """Take all the bytes that the header promises; the caller may not have ended yet.

        Raises:
            DeadlineExceededError: UPLOAD_STALLED.
            SplitformerError: What `check` and the chunks' checks raise.
        """
        header = self._header
        check(header)
        self._assembler = wire.ChunkAssembler(wire.packed_bytes(header.dtype, header.shape))
        await self._read(to_the_end=False)
        return header, self._assembler.finish()

    async def end(self) -> None:
        """Wait until the caller has ended, which must be what comes next.

        Raises:
            DeadlineExceededError: UPLOAD_STALLED.
            SplitformerError: Something else came.
        """
        await self._read(to_the_end=True)

    async def _read(self, to_the_end: bool) -> None:
        now = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(self._seconds) as patience:
                async for request in self._requests:
                    self._add(request)
                    if self._assembler.full and not to_the_end:
                        break
                    patience.reschedule(now() + self._seconds)
        except TimeoutError as error:
            raise DeadlineExceededError(
                f"chunk: must come within {self._seconds} s of the one before",
                reason="UPLOAD_STALLED",
            ) from error

    def _add(self, request: pb.OpenSessionRequest | pb.DecodeRequest) -> None:
        part = request.WhichOneof("part")
        if part != "chunk":
            raise InvalidArgumentError.of(
                "chunk", "must follow the header", part, reason="NO_CHUNK"
            )
        self._assembler.add(request.chunk)
