"""Arrays on the wire: packed into bytes and tensors, cut into chunks, and put together again.

Arrays are float32 in memory everywhere; `pack` rounds them to a wire type and `unpack` brings them
back. A memory is rounded once, by its encoder, so `unpack(pack(x))` of such an array is the
identity.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import google_crc32c
import numpy as np
import numpy.typing as npt

from splitformer.errors import DataLossError, InvalidArgumentError
from splitformer.v1 import tensor_pb2

FloatArray = npt.NDArray[np.float32]
Buffer = bytes | bytearray | memoryview | mmap.mmap

_ELEMENT_TYPES: dict[int, np.dtype[Any]] = {
    tensor_pb2.DATA_TYPE_F32: np.dtype("<f4"),
    tensor_pb2.DATA_TYPE_F16: np.dtype("<f2"),
    tensor_pb2.DATA_TYPE_BF16: np.dtype("<u2"),
    tensor_pb2.DATA_TYPE_I8: np.dtype("i1"),
}

DTYPE_NAMES = {
    "f32": tensor_pb2.DATA_TYPE_F32,
    "f16": tensor_pb2.DATA_TYPE_F16,
    "bf16": tensor_pb2.DATA_TYPE_BF16,
    "i8": tensor_pb2.DATA_TYPE_I8,
}
"""Wire types by the names that settings and documents use."""


# --- arrays ---------------------------------------------------------------------------------------


def checked_shape(dtype: int, shape: Sequence[int], field: str) -> tuple[int, ...]:
    """Return `shape` if it and `dtype` describe an array; the error names `field`."""
    if dtype not in _ELEMENT_TYPES:
        raise InvalidArgumentError.of(
            f"{field}.dtype", f"must be one of {sorted(DTYPE_NAMES)}", dtype, reason="BAD_DTYPE"
        )
    if not shape or any(axis < 1 for axis in shape):
        raise InvalidArgumentError.of(
            f"{field}.shape", "needs axes of at least 1", list(shape), reason="BAD_SHAPE"
        )
    return tuple(shape)


def packed_bytes(dtype: int, shape: Sequence[int]) -> int:
    """Bytes that `pack` makes of an array: the elements, and for I8 a f32 scale per row."""
    elements = math.prod(shape) * _ELEMENT_TYPES[dtype].itemsize
    scales = math.prod(shape[:-1]) * 4 if dtype == tensor_pb2.DATA_TYPE_I8 else 0
    return elements + scales


def pack(array: FloatArray, dtype: int) -> bytes:
    """Round a float32 array to a wire type; I8 elements are followed by their rows' scales."""
    room = np.empty(packed_bytes(dtype, array.shape), np.uint8)
    pack_into(array, dtype, room.data)
    return room.tobytes()


def pack_into(array: FloatArray, dtype: int, room: Buffer) -> None:
    """Write what `pack` returns into room of that size."""
    count = array.size
    elements = np.frombuffer(room, _ELEMENT_TYPES[dtype], count).reshape(array.shape)
    if dtype == tensor_pb2.DATA_TYPE_BF16:
        elements[...] = _to_bfloat16(array)
    elif dtype == tensor_pb2.DATA_TYPE_I8:
        scales = np.maximum(np.abs(array).max(axis=-1, keepdims=True), np.float32(1e-30)) / 127
        elements[...] = np.rint(array / scales)
        np.frombuffer(room, "<f4", offset=count)[...] = scales.ravel()
    else:
        elements[...] = array


def unpack(data: Buffer, dtype: int, shape: Sequence[int], field: str = "tensor") -> FloatArray:
    """Read what `pack` wrote, as float32 of the given shape; the error names `field`."""
    elements = elements_of(data, dtype, shape, field)
    if dtype == tensor_pb2.DATA_TYPE_BF16:
        return (elements.astype(np.uint32) << 16).view(np.float32)
    if dtype == tensor_pb2.DATA_TYPE_I8:
        scales = np.frombuffer(data, "<f4", offset=elements.size).reshape(*shape[:-1], 1)
        elements = elements * scales
    values: FloatArray = elements.astype(np.float32)
    return values


def elements_of(
    data: Buffer, dtype: int, shape: Sequence[int], field: str = "tensor"
) -> npt.NDArray[Any]:
    """Return packed elements as they are, without copying them; the error names `field`."""
    shape = checked_shape(dtype, shape, field)
    _check_size(data, dtype, shape, field)
    return np.frombuffer(data, _ELEMENT_TYPES[dtype], math.prod(shape)).reshape(shape)


def _check_size(data: Buffer, dtype: int, shape: Sequence[int], field: str) -> None:
    if len(data) != packed_bytes(dtype, shape):
        raise InvalidArgumentError.of(
            f"{field}.data",
            f"must hold {packed_bytes(dtype, shape)} bytes for shape {list(shape)}",
            len(data),
            reason="BAD_SIZE",
        )


def _to_bfloat16(array: FloatArray) -> npt.NDArray[np.uint16]:
    """Round to the upper half of each float32, to nearest, ties to even; NaNs stay NaNs."""
    bits = np.ascontiguousarray(array).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))
    quiet = bits | np.uint32(0x400000)
    return (np.where(np.isnan(array), quiet, rounded) >> 16).astype("<u2")


def tensor_message(data: Buffer, dtype: int, shape: Sequence[int]) -> tensor_pb2.Tensor:
    """Wrap packed bytes as a Tensor, moving I8 scales into their own field."""
    count = math.prod(shape) * _ELEMENT_TYPES[dtype].itemsize
    return tensor_pb2.Tensor(
        dtype=tensor_pb2.DataType.ValueType(dtype),
        shape=shape,
        data=bytes(data[:count]),
        scales=np.frombuffer(data, "<f4", offset=count).tolist(),
    )


def tensor_bytes(tensor: tensor_pb2.Tensor, field: str = "tensor") -> bytes:
    """Return a Tensor's packed bytes once type, shape and size are checked; `field` as above."""
    shape = checked_shape(tensor.dtype, tensor.shape, field)
    scales = math.prod(shape[:-1]) if tensor.dtype == tensor_pb2.DATA_TYPE_I8 else 0
    if len(tensor.scales) != scales:
        raise InvalidArgumentError.of(
            f"{field}.scales", f"must hold {scales} numbers", len(tensor.scales), reason="BAD_SIZE"
        )
    data = tensor.data + np.asarray(tensor.scales, "<f4").tobytes()
    _check_size(data, tensor.dtype, shape, field)
    return data


# --- chunks ---------------------------------------------------------------------------------------


def chunks_of(data: Buffer, chunk_bytes: int) -> Iterator[tensor_pb2.MemoryChunk]:
    """Cut packed bytes into checksummed chunks of at most `chunk_bytes`."""
    view = memoryview(data)
    for offset in range(0, len(view), chunk_bytes):
        piece = bytes(view[offset : offset + chunk_bytes])
        yield tensor_pb2.MemoryChunk(offset=offset, data=piece, crc32c=google_crc32c.value(piece))


class Chunk(Protocol):
    """A MemoryChunk, or what stands for one."""

    @property
    def offset(self) -> int: ...  # noqa: D102

    @property
    def data(self) -> bytes | memoryview: ...  # noqa: D102

    @property
    def crc32c(self) -> int: ...  # noqa: D102


class ChunkAssembler:
    """Puts chunks back together in one buffer allocated beforehand.

    Args:
        total_bytes: What the header's type and shape promise.
    """

    def __init__(self, total_bytes: int) -> None:
        self._buffer = bytearray(total_bytes)
        self._filled = 0

    @property
    def full(self) -> bool:
        """True once all bytes are there."""
        return self._filled == len(self._buffer)

    def add(self, chunk: Chunk) -> None:
        """Check and copy the next chunk.

        Raises:
            InvalidArgumentError: CHUNK_OUT_OF_ORDER or CHUNK_TOO_LONG.
            DataLossError: CORRUPT_CHUNK, the checksum does not match.
        """
        if chunk.offset != self._filled:
            raise InvalidArgumentError.of(
                "chunk.offset", f"must be {self._filled}", chunk.offset, reason="CHUNK_OUT_OF_ORDER"
            )
        data = chunk.data  # a copy each time it is asked for
        end = self._filled + len(data)
        if end > len(self._buffer) or not data:
            raise InvalidArgumentError.of(
                "chunk.data",
                f"must hold 1 to {len(self._buffer) - self._filled} bytes",
                len(data),
                reason="CHUNK_TOO_LONG" if data else "CHUNK_EMPTY",
            )
        if google_crc32c.value(bytes(data)) != chunk.crc32c:
            raise DataLossError(
                f"chunk.crc32c: does not match the data at offset {chunk.offset},"
                f" got {chunk.crc32c:#010x}"
            )
        with memoryview(self._buffer) as room:  # assigning to a bytearray's slice copies twice
            room[self._filled : end] = data
        self._filled = end

    def finish(self) -> bytearray:
        """Return the whole; DataLossError MEMORY_TRUNCATED if bytes are missing."""
        if not self.full:
            raise DataLossError(
                f"chunk: the stream ended after {self._filled} of {len(self._buffer)} bytes",
                reason="MEMORY_TRUNCATED",
            )
        return self._buffer
