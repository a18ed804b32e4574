"""Memories sent up to the decoder that are not what they should be."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from splitformer import wire
from splitformer.v1 import decoder_service_pb2 as dec, tensor_pb2
from tests.conftest import Services
from tests.support.rpc import Caller, Memory, refused, upload

INVALID = grpc.StatusCode.INVALID_ARGUMENT
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
LOSS = grpc.StatusCode.DATA_LOSS
MIB = 2**20


def changed(memory: Memory, **fields: object) -> Memory:
    header = tensor_pb2.MemoryHeader()
    header.CopyFrom(memory[0])
    for name, value in fields.items():
        if name == "shape":
            header.ClearField("shape")
            header.shape.extend(value)  # type: ignore[arg-type]
        else:
            setattr(header, name, value)
    return header, memory[1]


def test_a_memory_of_another_dtype_is_refused(caller: Caller) -> None:
    memory = caller.memory()
    for dtype in (tensor_pb2.DATA_TYPE_F32, tensor_pb2.DATA_TYPE_UNSPECIFIED, 99):
        with refused(INVALID, "BAD_DTYPE", "memory.dtype", dtype):
            caller.open(changed(memory, dtype=dtype))


@pytest.mark.parametrize(
    "shape", [[], [0, 32], [5, 31], [5, 32, 1], [160], [49, 32], [-1, 32], [2**40, 32]]
)
def test_a_memory_of_the_wrong_shape_is_refused(caller: Caller, shape: list[int]) -> None:
    with refused(INVALID, "BAD_SHAPE", "memory.shape", shape):
        caller.open(changed(caller.memory(), shape=shape))


@pytest.mark.parametrize("kind", [0, tensor_pb2.MEMORY_KIND_VECTOR, 99])
def test_a_memory_of_the_wrong_kind_is_refused(caller: Caller, kind: int) -> None:
    with refused(PRECONDITION, "WRONG_MEMORY_KIND"):
        caller.open(changed(caller.memory(), kind=kind))


def told(memory: Memory, *tokens: tuple[int, int, int]) -> Memory:
    """The memory with other source tokens: ids and byte spans."""
    header, data = changed(memory)
    header.ClearField("source_tokens")
    for token, begin, end in tokens:
        header.source_tokens.add(id=token, begin=begin, end=end)
    return header, data


def test_source_tokens_that_cannot_be_are_refused(caller: Caller) -> None:
    memory = caller.memory()
    rows, field = memory[0].shape[0], "memory.source_tokens"
    fine = [(8, 0, 1)] * (rows - 1)
    with refused(INVALID, "BAD_SOURCE_TOKENS", field, rows - 1):
        caller.open(told(memory, *fine))
    for token in (-1, 2**20):
        with refused(INVALID, "BAD_SOURCE_TOKENS", f"{field}[{rows - 1}].id", token):
            caller.open(told(memory, *fine, (token, 0, 1)))
    for span in ([-1, 1], [2, 1]):
        with refused(INVALID, "BAD_SOURCE_TOKENS", f"{field}[0]", span):
            caller.open(told(memory, (8, span[0], span[1]), *fine))


def test_a_source_text_that_cannot_be_is_refused(caller: Caller) -> None:
    memory = caller.memory()
    text = memory[0].source_text
    for wrong in (text[:-1], text * 2**10):
        with refused(INVALID, "BAD_SOURCE_TEXT", "memory.source_text", len(wrong)):
            caller.open(changed(memory, source_text=wrong))
    caller.close_session(caller.open(changed(memory, source_text="")))


def test_a_session_and_its_forks_know_their_source(caller: Caller, services: Services) -> None:
    memory, held = caller.memory(), services.decoder.service.sessions
    pieces = [(token.id, token.begin, token.end) for token in memory[0].source_tokens]
    session = caller.open(memory)
    twins = [
        caller.decoder.ForkSession(
            dec.ForkSessionRequest(session_id=session, target_language=language)
        ).session.session_id
        for language in ("", "fr")
    ]
    for each in (session, *twins):
        source = held.get(each).target.source
        assert [(piece.id, piece.begin, piece.end) for piece in source] == pieces
    unknown = caller.open(told(memory))
    assert held.get(unknown).target.source == ()
    for each in (session, *twins, unknown):
        caller.close_session(each)


def test_too_many_bytes_are_refused(caller: Caller) -> None:
    header, data = caller.memory()
    with refused(INVALID, "CHUNK_TOO_LONG", "chunk.data", len(data) + 2):
        caller.open_stream(upload((header, data + b"xx"), chunk_bytes=MIB))
    with refused(INVALID, "CHUNK_TOO_LONG", "chunk.data", 2):
        extra = upload((header, b"xx"))[1]
        extra.chunk.offset = len(data)
        caller.open_stream([*upload((header, data)), extra])


def test_too_few_bytes_are_data_loss(caller: Caller) -> None:
    requests = upload(caller.memory())
    assert len(requests) > 3
    for count in range(1, len(requests)):
        with refused(LOSS, "MEMORY_TRUNCATED"):
            caller.open_stream(requests[:count])


def test_chunks_out_of_order_are_refused(caller: Caller) -> None:
    header, *chunks = upload(caller.memory())
    with refused(INVALID, "CHUNK_OUT_OF_ORDER", "chunk.offset", 256):
        caller.open_stream([header, chunks[1], chunks[0], *chunks[2:]])
    with refused(INVALID, "CHUNK_OUT_OF_ORDER", "chunk.offset", 0):
        caller.open_stream([header, chunks[0], *chunks])
    with refused(INVALID, "CHUNK_OUT_OF_ORDER", "chunk.offset", 512):
        caller.open_stream([header, chunks[0], *chunks[2:]])


def test_an_empty_chunk_is_refused(caller: Caller) -> None:
    header = upload(caller.memory())[0]
    with refused(INVALID, "CHUNK_EMPTY", "chunk.data", 0):
        caller.open_stream([header, dec.OpenSessionRequest(chunk=tensor_pb2.MemoryChunk())])


def test_a_flipped_bit_is_data_loss(caller: Caller) -> None:
    requests = upload(caller.memory())
    chunk = requests[2].chunk
    chunk.data = bytes([chunk.data[0] ^ 1]) + chunk.data[1:]
    with refused(LOSS, "CORRUPT_CHUNK"):
        caller.open_stream(requests)


def test_a_stream_must_be_a_header_then_chunks(caller: Caller) -> None:
    header, *chunks = upload(caller.memory())
    with refused(INVALID, "NO_HEADER", "header", None):
        caller.open_stream(chunks)
    with refused(INVALID, "NO_HEADER", "header", None):
        caller.open_stream([])
    with refused(INVALID, "NO_CHUNK", "chunk", "header"):
        caller.open_stream([header, header])
    with refused(INVALID, "NO_CHUNK", "chunk", None):
        caller.open_stream([header, dec.OpenSessionRequest()])
    with refused(INVALID, "NO_MEMORY", "header.memory", None):
        caller.open_stream([dec.OpenSessionRequest(header=dec.SessionHeader())])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_memory_that_is_not_finite_is_refused(caller: Caller, bad: float) -> None:
    header, data = caller.memory()
    values = wire.unpack(data, header.dtype, header.shape)
    values[1, 2] = bad
    with refused(INVALID, "NOT_FINITE", "memory", "infinity or NaN"):
        caller.open((header, wire.pack(values, header.dtype)))
