"""Where tokens stand, as numbers: fixed position vectors, and buckets of distances."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitformer.model.config import TransformerConfig
from splitformer.native import FloatArray

Integers = NDArray[np.int64]


def sinusoidal_positions(
    count: int, d_model: int, offset: int = 0, closed: bool = False
) -> FloatArray:
    """Fixed position vectors (Vaswani et al. 2017, section 3.5), sines first, then cosines.

    The paper interleaves sine and cosine; its own implementation (tensor2tensor) and the published
    checkpoints concatenate them, and so do we. The two differ by a permutation of columns.

    Args:
        count: Rows.
        d_model: D.
        offset: Position of the first row.
        closed: Let the slowest rate be exactly 1/10000, as fairseq does; the paper ends before it.

    Returns:
        (count, D), float32.
    """
    half = d_model // 2
    parts = max(1, half - 1) if closed else half
    rates = np.exp(np.arange(half) * (-math.log(10000.0) / parts))
    angles = np.arange(offset, offset + count)[:, None] * rates  # (count, D/2)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1).astype(np.float32)


def fixed_positions(config: TransformerConfig) -> FloatArray | None:
    """Position vectors that an architecture fixes, (max_positions, D); None if it fixes none."""
    if not config.positions.startswith("sinusoidal"):
        return None
    closed = config.positions == "sinusoidal_closed"
    count, width = config.max_positions, config.d_model
    return sinusoidal_positions(count, width, config.position_offset, closed)


def buckets(ahead: NDArray[Any], count: int, most: int, both_ways: bool) -> Integers:
    """How far keys are ahead of their queries, to buckets (Raffel et al. 2020, section 2.1).

    Small distances fall into one bucket each, larger ones into logarithmically wider ones, and all
    from some distance on into the last.

    Args:
        ahead: Distances, of any shape.
        count: Buckets there are.
        most: From this distance on all fall into the last.
        both_ways: True in encoders: half of the buckets are for keys behind the query. In decoders
            there are none, and all buckets are for keys before it.
    """
    if both_ways:
        count //= 2
        return np.where(ahead > 0, count, 0) + _buckets(np.abs(ahead), count, most)
    return _buckets(np.maximum(-ahead, 0), count, most)


def buckets_by_distance(count: int, most: int, both_ways: bool) -> Integers:
    """Buckets by distance, for kernels that take biases so.

    Returns:
        Of decoders (most + 1,), for a key so many positions before its query; of encoders
        (2 * most + 1,), for keys from `most` before to as many behind it. The outermost hold for
        all that are farther.
    """
    ahead = np.arange(-most, most + 1) if both_ways else -np.arange(most + 1)
    return buckets(ahead, count, most, both_ways)


def _buckets(distance: NDArray[Any], count: int, most: int) -> Integers:
    exact = count // 2
    # In float32 and in this order, as the published checkpoints were trained.
    size = np.maximum(distance, 1).astype(np.float32) / np.float32(exact)
    steps = np.log(size) / np.float32(math.log(most / exact))
    wide = exact + (steps * np.float32(count - exact)).astype(np.int64)
    return np.where(distance < exact, distance, np.minimum(wide, count - 1))
