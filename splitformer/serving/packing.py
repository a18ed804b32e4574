"""Memories to their wire type and back in the services, which have the native library at hand.

What comes out is what `splitformer.wire` makes, bit for bit; the client has only that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from splitformer import wire
from splitformer.native import narrow, widen
from splitformer.v1 import tensor_pb2


def pack(memory: wire.FloatArray, dtype: int) -> bytes:
    """As `wire.pack`."""
    room = bytearray(wire.packed_bytes(dtype, memory.shape))
    pack_into(memory, dtype, room)
    return bytes(room)


def pack_into(memory: wire.FloatArray, dtype: int, room: wire.Buffer) -> None:
    """As `wire.pack_into`."""
    if dtype == tensor_pb2.DATA_TYPE_F16:
        narrow(memory, np.frombuffer(room, np.float16, memory.size).reshape(memory.shape))
    else:
        wire.pack_into(memory, dtype, room)


def unpack(data: wire.Buffer, dtype: int, shape: Sequence[int], field: str) -> wire.FloatArray:
    """As `wire.unpack`."""
    if dtype == tensor_pb2.DATA_TYPE_F16:
        return widen(wire.elements_of(data, dtype, shape, field))
    return wire.unpack(data, dtype, shape, field)
