"""Kernels of the native library one by one, as functions of arrays."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from numpy.typing import NDArray

from splitformer import native
from splitformer.native import Activation, Cache, FloatArray, InstructionSet, Precision
from splitformer.native.binding import NormStruct, address, library
from splitformer.native.operations import ACTIVATIONS, CACHES, NORMS, PRECISIONS, NormKind

_EXCUSES = (
    "no C++ compiler",
    "needs x86-64 Linux",
    "the processor lacks",
    "SPLITFORMER_NATIVE is off",
)


def excuse() -> str:
    """Why this machine need not have the library; empty if it must, and tests fail without.

    That a compiler which is there cannot build it is no excuse.
    """
    reason = native.reason() or ""
    return reason if reason.startswith(_EXCUSES) else ""


needs_native = pytest.mark.skipif(bool(excuse()), reason=f"native: {excuse()}")


def instruction_sets() -> list[InstructionSet]:
    """Return what this machine can run."""
    if not native.available():
        return [] if excuse() else [InstructionSet.AVX2]  # to fail
    return [isa for isa in InstructionSet if InstructionSet.NONE < isa <= library().best]


def linear(
    x: FloatArray,
    weight: FloatArray,
    bias: FloatArray | None,
    precision: Precision,
    isa: InstructionSet,
) -> tuple[NDArray[np.int8], FloatArray, NDArray[np.int32], FloatArray]:
    """Multiply rows (M, K) with a map (N, K).

    Returns:
        Quantised rows (M, K) and their scales (M,), both meaningless for floats; the product's raw
        sums (M, N); the outputs (M, N).
    """
    rows, inputs = x.shape
    width = weight.shape[0]
    columns = -(-width // 16) * 16
    operand = np.zeros((-(-rows // 16) * 16, -(-inputs // 32) * 32 * 4), np.uint8)
    scales = np.zeros(rows, np.float32)
    sums = np.zeros((rows, columns), np.int32)
    out = np.zeros((rows, columns), np.float32)
    offset = library().probe_linear(
        *(PRECISIONS[precision], isa, address(x), rows, inputs),
        *(address(weight), address(bias), width),
        *(address(operand), address(scales), address(sums), address(out)),
    )
    wide = operand.view(np.int16)[:rows, :inputs]
    quantised = wide if offset == 0 else operand[:rows, :inputs].astype(np.int16) - offset
    return quantised.astype(np.int8), scales, sums[:, :width], out[:, :width]


def norm(
    kind: NormKind,
    x: FloatArray,
    gain: FloatArray,
    shift: FloatArray,
    epsilon: float,
    isa: InstructionSet,
) -> FloatArray:
    """Normalise one row."""
    out = np.empty_like(x)
    given = NormStruct(NORMS[kind], epsilon, address(gain), address(shift))
    library().probe_norm(isa, ctypes.byref(given), address(x), x.size, address(out))
    return out


def activate(activation: Activation, x: FloatArray, isa: InstructionSet) -> FloatArray:
    """Apply an activation."""
    out = x.copy()
    library().probe_activation(isa, ACTIVATIONS[activation], address(out), out.size)
    return out


def likeliest(
    logits: FloatArray, mask: FloatArray | None, isa: InstructionSet
) -> tuple[int, float, float]:
    """Look at logits, a multiple of 16 of them.

    Returns:
        The likeliest id that is not masked, or -1; the largest logit, and the sum of exponentials
        of all logits less the largest.
    """
    largest, total = ctypes.c_float(), ctypes.c_float()
    found = library().probe_logits(
        *(isa, address(logits), address(mask), logits.size),
        *(ctypes.byref(largest), ctypes.byref(total)),
    )
    return found, largest.value, total.value


def attend(
    query: FloatArray,
    keys: FloatArray,
    values: FloatArray,
    scale: float,
    bias: FloatArray | None,
    cache: Cache = "f32",
) -> FloatArray:
    """Attend from (K,) to keys and values (T, K), held in a cache of some type."""
    positions, width = keys.shape
    out = np.empty(width, np.float32)
    library().probe_attention(
        *(CACHES[cache], address(query), address(keys), address(values), positions, width, scale),
        *(address(bias), 0 if bias is None else bias.size, address(out)),
    )
    return out
