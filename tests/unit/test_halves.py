"""Floats to 16 bits and back by the library: numpy's bits, for every value and every length."""

from __future__ import annotations

import numpy as np
import pytest

from splitformer import wire
from splitformer.errors import InvalidArgumentError
from splitformer.native import narrow, widen
from splitformer.native.binding import library, loaded
from splitformer.serving import packing
from splitformer.v1 import tensor_pb2
from tests.support.native import needs_native

F16 = tensor_pb2.DATA_TYPE_F16
EVERY_HALF = np.arange(1 << 16, dtype=np.uint16).view(np.float16)


@pytest.fixture(params=[pytest.param("native", marks=needs_native), "numpy"])
def by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who converts."""
    if request.param == "numpy":
        monkeypatch.setattr("splitformer.native.halves.loaded", lambda: None)
    else:
        library()
        assert loaded() is not None
    return str(request.param)


def rounded(values: wire.FloatArray) -> wire.FloatArray:
    with np.errstate(over="ignore"):
        return values.astype(np.float16).view(np.uint16)


def narrowed(values: wire.FloatArray) -> wire.FloatArray:
    out = np.full(values.shape, 7, np.float16)
    narrow(values, out)
    return out.view(np.uint16)


def floats_around(values: wire.FloatArray) -> wire.FloatArray:
    """Numbers, what lies just beside them, and the middles between them and their neighbours."""
    bits = values.view(np.uint32)[:, None] + np.arange(-2, 3, dtype=np.int64)[None]
    middles = (bits + (1 << 12)) % (1 << 32)
    return np.concatenate([bits % (1 << 32), middles]).ravel().astype(np.uint32).view(np.float32)


def test_every_half_is_widened_exactly(by: str) -> None:
    wide = widen(EVERY_HALF)
    assert np.array_equal(wide.view(np.uint32), EVERY_HALF.astype(np.float32).view(np.uint32))


def test_every_half_its_neighbours_and_ties_are_rounded_like_numpy(by: str) -> None:
    values = floats_around(EVERY_HALF.astype(np.float32))
    assert np.array_equal(narrowed(values), rounded(values))


def test_floats_of_all_kinds_are_rounded_like_numpy(by: str) -> None:
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 1 << 32, 1 << 20, dtype=np.uint64).astype(np.uint32)
    special = [0, 1, 0x7F800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0xFF800001, 0xFFBFFFFF]
    values = np.concatenate([bits, np.array(special, np.uint32)]).view(np.float32)
    assert np.array_equal(narrowed(values), rounded(values))
    edges = np.array([65504, 65519.996, 65520, 1e30, -65520, 2**-24, 2**-25, 2**-25 * 1.001])
    assert narrowed(edges.astype(np.float32)).tolist() == [
        *(0x7BFF, 0x7BFF, 0x7C00, 0x7C00, 0xFC00, 0x0001, 0x0000, 0x0001)
    ]


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 24, 31])
def test_nothing_beyond_the_end_is_written(by: str, size: int) -> None:
    values = np.random.default_rng(size).standard_normal(size, np.float32)
    room = np.full(size + 8, 7, np.float16)
    narrow(values, room[:size])
    assert np.array_equal(room[:size], values.astype(np.float16))
    assert (room[size:] == 7).all()
    assert np.array_equal(widen(room[:size]), room[:size].astype(np.float32))


def test_shapes_that_do_not_fit_are_refused(by: str) -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        narrow(np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float16))


@pytest.mark.parametrize("dtype", [*wire.DTYPE_NAMES.values()])
def test_services_pack_what_the_wire_does(by: str, dtype: int) -> None:
    memory = np.random.default_rng(1).standard_normal((5, 13), np.float32) * 100
    packed = packing.pack(memory, dtype)
    assert packed == wire.pack(memory, dtype)
    assert packing.pack(memory[:, ::-1], dtype) == wire.pack(memory[:, ::-1], dtype), "strided"
    for data in (packed, bytearray(packed), memoryview(packed)):
        there = packing.unpack(data, dtype, memory.shape, "memory")
        back = wire.unpack(packed, dtype, memory.shape)
        assert there.dtype == np.float32
        assert there.flags.writeable
        assert np.array_equal(there, back)


def test_what_does_not_hold_its_shape_is_refused_as_by_the_wire(by: str) -> None:
    for data, shape, reason in ((b"123", (1, 2), "BAD_SIZE"), (b"", (0, 2), "BAD_SHAPE")):
        with pytest.raises(InvalidArgumentError, match="memory") as caught:
            packing.unpack(data, F16, shape, "memory")
        assert caught.value.reason == reason


@needs_native
def test_nothing_is_built_or_used_that_nobody_has_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    library()
    monkeypatch.setenv("SPLITFORMER_NATIVE", "off")
    assert loaded() is None
