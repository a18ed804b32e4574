"""Messages that hold a chunk of a memory, written and read without protobuf's copies.

protobuf copies the bytes of a chunk four times on their way into a message and out of it. Here a
message is put together around them, to the same bytes that protobuf would write, and read where it
lies. It works for every message whose field 2 is a `MemoryChunk`: FetchMemoryResponse and
StreamEncodeResponse. What is laid out in any other way is left to protobuf.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar, cast

import google_crc32c
from google.protobuf.message import Message

from splitformer.v1 import tensor_pb2

M = TypeVar("M", bound=Message)

_CHUNK = 0x12  # field 2 of the message, length-delimited
_OFFSET, _DATA, _CRC = 0x08, 0x12, 0x1D  # fields 1 to 3 of MemoryChunk
_CRC_BYTES = 5


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a `MemoryChunk` holds; `data` is a view of the message that it came in."""

    offset: int
    data: memoryview
    crc32c: int


def chunk_messages(kind: type[M], data: memoryview, chunk_bytes: int) -> Iterator[M]:
    """Cut packed bytes into messages with checksummed chunks, serialised already.

    Args:
        kind: The type of the messages; its field 2 is a MemoryChunk.
        data: The bytes.
        chunk_bytes: Most of them in one message.
    """
    assert kind.DESCRIPTOR.fields_by_number[2].message_type is tensor_pb2.MemoryChunk.DESCRIPTOR
    for offset in range(0, len(data), chunk_bytes):
        piece = bytes(data[offset : offset + chunk_bytes])
        yield cast("M", _message(offset, piece, google_crc32c.value(piece)))


def chunk_in(message: bytes) -> Chunk | None:
    """Return the chunk that a message as `chunk_messages` makes them holds, else None."""
    try:
        return _read(message)
    except (IndexError, ValueError):
        return None


def _message(offset: int, piece: bytes, crc32c: int) -> bytes:
    head = tensor_pb2.MemoryChunk(offset=offset).SerializeToString()
    head += bytes((_DATA,)) + _varint(len(piece))
    tail = tensor_pb2.MemoryChunk(crc32c=crc32c).SerializeToString()
    size = len(head) + len(piece) + len(tail)
    return b"".join((bytes((_CHUNK,)), _varint(size), head, piece, tail))


def _read(message: bytes) -> Chunk | None:
    tag, size, at = message[0], *_number(message, 1)
    if tag != _CHUNK or at + size != len(message):
        return None
    offset = 0
    if message[at] == _OFFSET:
        offset, at = _number(message, at + 1)
    tag, count, at = message[at], *_number(message, at + 1)
    end = at + count
    if tag != _DATA or end + _CRC_BYTES != len(message) or message[end] != _CRC:
        return None
    crc32c = int.from_bytes(message[end + 1 :], "little")
    return Chunk(offset, memoryview(message)[at:end], crc32c)


def _varint(number: int) -> bytes:
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def _number(message: bytes, at: int) -> tuple[int, int]:
    """Read a varint; return it and where it ends. ValueError if it is no 64-bit number."""
    number = 0
    for shift in range(0, 63, 7):
        byte = message[at]
        number |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return number, at
    raise ValueError("a varint is too long")
