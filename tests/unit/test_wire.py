"""Arrays and chunks on the wire."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from splitformer import wire
from splitformer.errors import (
    DataLossError,
    InvalidArgumentError,
    SplitformerError,
    Violation,
)
from splitformer.v1 import tensor_pb2

F32, F16 = tensor_pb2.DATA_TYPE_F32, tensor_pb2.DATA_TYPE_F16
BF16, I8 = tensor_pb2.DATA_TYPE_BF16, tensor_pb2.DATA_TYPE_I8
TYPES = (F32, F16, BF16, I8)
Array = npt.NDArray[np.float32]

ARRAYS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=1, max_dims=3, max_side=6),
    elements=st.floats(-60000, 60000, width=32),
)


@settings(max_examples=80, deadline=None)
@given(ARRAYS, st.sampled_from(TYPES))
def test_unpack_undoes_pack_up_to_rounding(array: Array, dtype: int) -> None:
    packed = wire.pack(array, dtype)
    assert len(packed) == wire.packed_bytes(dtype, array.shape)
    back = wire.unpack(packed, dtype, array.shape)
    assert back.dtype == np.float32
    assert back.shape == array.shape
    steps: dict[int, float] = {F32: 0.0, F16: 2.0**-11, BF16: 2.0**-8, I8: 0.51 / 127}
    scale = np.abs(array).max(axis=-1, keepdims=True) if dtype == I8 else np.abs(array)
    assert (np.abs(back - array) <= steps[dtype] * scale + 6e-8).all()


@settings(max_examples=80, deadline=None)
@given(ARRAYS, st.sampled_from((F32, F16, BF16)))
def test_a_rounded_array_passes_unchanged(array: Array, dtype: int) -> None:
    once = wire.pack(array, dtype)
    assert wire.pack(wire.unpack(once, dtype, array.shape), dtype) == once


@settings(max_examples=40, deadline=None)
@given(ARRAYS, st.sampled_from(TYPES))
def test_a_tensor_message_holds_the_same_bytes(array: Array, dtype: int) -> None:
    packed = wire.pack(array, dtype)
    tensor = wire.tensor_message(packed, dtype, array.shape)
    assert wire.tensor_bytes(tensor) == packed
    assert len(tensor.scales) == (math.prod(array.shape[:-1]) if dtype == I8 else 0)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 400))
def test_chunks_put_together_are_the_whole(data: bytes, chunk_bytes: int) -> None:
    assembler = wire.ChunkAssembler(len(data))
    chunks = list(wire.chunks_of(data, chunk_bytes))
    assert all(1 <= len(chunk.data) <= chunk_bytes for chunk in chunks)
    for chunk in chunks:
        assembler.add(chunk)
    assert bytes(assembler.finish()) == data


def test_bfloat16_rounds_to_nearest_even_and_keeps_what_is_not_finite() -> None:
    import torch  # noqa: PLC0415 (a reference for this test alone)

    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 10_000, dtype=np.uint32).view(np.float32)
    edges = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0x7F800000, 0x80000000], np.uint32)
    array = np.concatenate([bits, edges.view(np.float32)])
    ours = wire.unpack(wire.pack(array, BF16), BF16, array.shape)
    theirs = torch.from_numpy(array).to(torch.bfloat16).float().numpy()
    assert np.array_equal(np.isnan(ours), np.isnan(array))
    assert np.array_equal(ours, theirs, equal_nan=True)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_is_not_finite_stays_visible(dtype: int, bad: float) -> None:
    array = np.ones((2, 3), np.float32)
    array[1, 1] = bad
    assert not np.isfinite(wire.unpack(wire.pack(array, dtype), dtype, (2, 3))).all()


def test_a_row_of_zeros_survives_int8() -> None:
    array = np.zeros((2, 3), np.float32)
    assert np.array_equal(wire.unpack(wire.pack(array, I8), I8, (2, 3)), array)


@pytest.mark.parametrize("shape", [[], [0], [3, 0], [-1, 2]])
def test_bad_shapes_are_refused(shape: Sequence[int]) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        wire.unpack(b"", F32, shape, "m")
    assert caught.value.reason == "BAD_SHAPE"
    assert caught.value.violations[0].field == "m.shape"


@pytest.mark.parametrize("dtype", [0, 5, 99, -1])
def test_bad_types_are_refused(dtype: int) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        wire.unpack(b"", dtype, [1], "m")
    assert caught.value.reason == "BAD_DTYPE"
    expected = Violation("m.dtype", f"must be one of ['bf16', 'f16', 'f32', 'i8'], got {dtype}")
    assert caught.value.violations == (expected,)


@pytest.mark.parametrize("size", [0, 23, 25])
def test_bad_sizes_are_refused(size: int) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        wire.unpack(bytes(size), F32, [2, 3], "m")
    expected = Violation("m.data", f"must hold 24 bytes for shape [2, 3], got {size}")
    assert (caught.value.reason, caught.value.violations) == ("BAD_SIZE", (expected,))


def test_scales_must_be_as_many_as_rows() -> None:
    tensor = wire.tensor_message(wire.pack(np.ones((2, 4), np.float32), I8), I8, [2, 4])
    tensor.data, moved = tensor.data[:4], tensor.data[4:]
    tensor.scales.append(np.frombuffer(moved, "<f4")[0])
    with pytest.raises(InvalidArgumentError) as caught:
        wire.tensor_bytes(tensor)
    assert caught.value.violations == (Violation("tensor.scales", "must hold 2 numbers, got 3"),)


def chunk(offset: int, data: bytes) -> tensor_pb2.MemoryChunk:
    (made,) = wire.chunks_of(data, len(data))
    made.offset = offset
    return made


def test_a_wrong_chunk_is_refused_and_leaves_the_rest_as_it_was() -> None:
    assembler = wire.ChunkAssembler(6)
    assembler.add(chunk(0, b"abc"))
    corrupt = chunk(3, b"def")
    corrupt.crc32c ^= 1
    for wrong, reason in (
        (chunk(0, b"abc"), "CHUNK_OUT_OF_ORDER"),
        (chunk(4, b"ef"), "CHUNK_OUT_OF_ORDER"),
        (chunk(3, b"defg"), "CHUNK_TOO_LONG"),
        (tensor_pb2.MemoryChunk(offset=3), "CHUNK_EMPTY"),
        (corrupt, "CORRUPT_CHUNK"),
    ):
        with pytest.raises(SplitformerError) as caught:
            assembler.add(wrong)
        assert caught.value.reason == reason
    with pytest.raises(DataLossError, match="after 3 of 6 bytes"):
        assembler.finish()
    assembler.add(chunk(3, b"def"))
    assert assembler.finish() == b"abcdef"


def test_the_checksum_is_castagnolis() -> None:
    assert chunk(0, b"123456789").crc32c == 0xE3069283
