"""Floats to 16 bits and back, eight at a time, with the bits that numpy has.

Numpy takes each alone; it does so here where nothing has loaded the library.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitformer.native.binding import address, loaded
from splitformer.native.operations import FloatArray

HalfArray = NDArray[np.float16]


def narrow(values: FloatArray, out: HalfArray) -> None:
    """Round float32 to float16, to nearest, ties to even; beyond its range to infinity.

    Args:
        values: Any shape.
        out: The same shape, contiguous.
    """
    count, native = _size(values, out), loaded()
    if native is None:
        with np.errstate(over="ignore"):
            out[...] = values
    else:
        source: FloatArray = np.ascontiguousarray(values, np.float32)
        native.narrow(address(source), count, address(out))


def widen(halves: HalfArray) -> FloatArray:
    """Return contiguous float16 of any shape as float32."""
    native = loaded()
    if native is None:
        return halves.astype(np.float32)
    values: FloatArray = np.empty(halves.shape, np.float32)
    native.widen(address(halves), halves.size, address(values))
    return values


def _size(source: NDArray[Any], out: NDArray[Any]) -> int:
    if source.shape != out.shape:
        raise ValueError(f"out: must be {source.shape}, got {out.shape}")
    return source.size
