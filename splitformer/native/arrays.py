"""Arrays, norms and weights as the library takes them: checked, and without a copy."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitformer.native.binding import (
    NormStruct,
    WeightsStruct,
    address,
    library,
)
from splitformer.native.operations import (
    ELEMENTS,
    NORMS,
    FloatArray,
    Norm,
    StoredArray,
    Weights,
)


def quantised(weight: StoredArray) -> tuple[NDArray[np.int8], FloatArray]:
    """Quantise rows of weights (n, inputs) to int8 as plans do; also returns their scales (n,)."""
    weight = as_taken(weight)
    rows, inputs = weight.shape
    out, scales = np.empty((rows, inputs), np.int8), np.empty(rows, np.float32)
    library().check(
        library().quantise(
            *(ELEMENTS[weight.dtype.type], address(weight), rows, inputs),
            *(address(out), address(scales)),
        )
    )
    return out, scales


def as_taken(values: StoredArray) -> StoredArray:
    """As the library takes it: without a copy where possible."""
    known = values if values.dtype.type in ELEMENTS else values.astype(np.float32)
    return np.ascontiguousarray(known)


def _is_mapped(values: Any) -> bool:
    """True if an array is a view of a mapped file."""
    while isinstance(values, np.ndarray):
        values = values.base
    return isinstance(values.obj if isinstance(values, memoryview) else values, mmap.mmap)


def require(values: FloatArray, shape: tuple[int, ...], name: str) -> None:
    """ValueError unless values are contiguous float32 of a shape."""
    if values.shape != shape or values.dtype != np.float32 or not values.flags.c_contiguous:
        raise ValueError(f"{name}: must be contiguous float32 {shape}, got {values.shape}")


def norm_of(norm: Norm | None, d_model: int) -> Any:
    """Return a pointer to a norm's structure; None for none."""
    if norm is None:
        return None
    for values in (norm.gain, norm.shift):
        if values is not None:
            require(values, (d_model,), "norm")
    return ctypes.byref(
        NormStruct(NORMS[norm.kind], norm.epsilon, address(norm.gain), address(norm.shift))
    )


def weights_of(weights: Sequence[Weights], inputs: int) -> tuple[Any, list[StoredArray]]:
    """Return an array of structures, and what has to stay alive while it is used."""
    parts, kept = (WeightsStruct * len(weights))(), []
    for part, given in zip(parts, weights, strict=True):
        weight, vectors = as_taken(given.weight), (given.bias, given.scales)
        if weight.shape != (weight.shape[0], inputs):
            raise ValueError(f"weight: must be (width, {inputs}), got {weight.shape}")
        for values in vectors:
            if values is not None:
                require(values, (weight.shape[0],), "bias or scales")
        kept.append(weight)
        part.weight, part.width = address(weight), weight.shape[0]
        part.bias, part.scale = map(address, vectors)
        part.element, part.mapped = ELEMENTS[weight.dtype.type], _is_mapped(weight)
    return parts, kept
