"""Chunk messages written and read by hand are protobuf's, byte for byte."""

from __future__ import annotations

import google_crc32c
import pytest
from hypothesis import given, settings, strategies as st

from splitformer.framing import chunk_in, chunk_messages
from splitformer.v1 import encoder_service_pb2 as pb, tensor_pb2

LARGE = bytes(range(256)) * 1200


def messages(data: bytes, chunk_bytes: int) -> list[bytes]:
    made = chunk_messages(pb.FetchMemoryResponse, memoryview(data), chunk_bytes)
    return [bytes(message) for message in made]  # type: ignore[call-overload]


@pytest.mark.parametrize("chunk_bytes", [1, 127, 128, 300, 16384, 70_000, len(LARGE), 10**6])
def test_they_are_what_protobuf_writes(chunk_bytes: int) -> None:
    data = LARGE[: 200 * chunk_bytes]
    for number, message in enumerate(messages(data, chunk_bytes)):
        offset = number * chunk_bytes
        piece = data[offset : offset + chunk_bytes]
        crc32c = google_crc32c.value(piece)
        chunk = tensor_pb2.MemoryChunk(offset=offset, data=piece, crc32c=crc32c)
        assert message == pb.FetchMemoryResponse(chunk=chunk).SerializeToString()
        read = chunk_in(message)
        assert read is not None
        assert (read.offset, bytes(read.data), read.crc32c) == (offset, piece, crc32c)


def test_no_data_is_no_message() -> None:
    assert messages(b"", 10) == []


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_whatever_else_comes_is_left_to_protobuf(data: bytes) -> None:
    read = chunk_in(data)
    if read is not None:  # then protobuf says the same
        chunk = pb.FetchMemoryResponse.FromString(data).chunk
        assert (chunk.offset, chunk.data, chunk.crc32c) == (
            read.offset,
            bytes(read.data),
            read.crc32c,
        )


@pytest.mark.parametrize(
    "message",
    [
        pb.FetchMemoryResponse(header=pb.FetchedHeader()),
        pb.FetchMemoryResponse(trailer=pb.MemoryTrailer(total_bytes=5, chunks=1)),
        pb.FetchMemoryResponse(chunk=tensor_pb2.MemoryChunk(offset=7, crc32c=1)),
        pb.FetchMemoryResponse(chunk=tensor_pb2.MemoryChunk(offset=-1, data=b"ab", crc32c=1)),
        pb.FetchMemoryResponse(),
    ],
)
def test_other_messages_are_no_chunks_of_ours(message: pb.FetchMemoryResponse) -> None:
    assert chunk_in(message.SerializeToString()) is None


def test_a_message_that_was_cut_short_or_drawn_out_is_none() -> None:
    (whole,) = messages(b"memory", 10)
    assert chunk_in(whole) is not None
    assert not any(chunk_in(whole[:end]) for end in range(len(whole)))
    assert chunk_in(whole + b"\0") is None
