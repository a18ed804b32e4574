"""A memory on its way up: whole as soon as its bytes are there, and nothing may follow it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from decoder_service.uploading import Upload
from splitformer import wire
from splitformer.errors import DeadlineExceededError, InvalidArgumentError
from splitformer.v1 import decoder_service_pb2 as pb, tensor_pb2

MEMORY = wire.pack(np.arange(12, dtype=np.float32).reshape(3, 4), tensor_pb2.DATA_TYPE_F16)
HEADER = tensor_pb2.MemoryHeader(dtype=tensor_pb2.DATA_TYPE_F16, shape=[3, 4])


def chunks() -> list[pb.DecodeRequest]:
    return [pb.DecodeRequest(chunk=chunk) for chunk in wire.chunks_of(MEMORY, 10)]


async def stream(*requests: pb.DecodeRequest, ends: bool = True) -> AsyncIterator[pb.DecodeRequest]:
    for request in requests:
        yield request
    if not ends:
        await asyncio.Event().wait()


async def test_it_is_there_before_its_caller_has_ended() -> None:
    upload = Upload(HEADER, stream(*chunks(), ends=False), 0.05)
    checked: list[tensor_pb2.MemoryHeader] = []
    header, data = await upload.take(checked.append)
    assert (header, bytes(data)) == (HEADER, MEMORY)
    assert checked == [HEADER]
    with pytest.raises(DeadlineExceededError):
        await upload.end()


async def test_its_end_is_seen_and_nothing_else_is_taken_for_it() -> None:
    upload = Upload(HEADER, stream(*chunks()), 5.0)
    await upload.take(lambda header: None)
    await upload.end()
    for extra in (chunks()[-1], pb.DecodeRequest(header=pb.DecodeHeader())):
        upload = Upload(HEADER, stream(*chunks(), extra), 5.0)
        await upload.take(lambda header: None)
        with pytest.raises(InvalidArgumentError):
            await upload.end()


async def test_a_header_that_does_not_fit_ends_it() -> None:
    def refuse(header: tensor_pb2.MemoryHeader) -> None:
        raise InvalidArgumentError("no")

    with pytest.raises(InvalidArgumentError):
        await Upload(HEADER, stream(*chunks()), 5.0).take(refuse)
