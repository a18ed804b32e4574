"""Draws of a token: in the native library, or the same in numpy where there is none.

The order is that of Transformers: top-k, top-p, min-p. What is left is gone through in the order of
ids, so that it does not matter whether a draw saw all tokens or only these.
"""

from __future__ import annotations

import math
import threading
from array import array
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitformer.native import Draw, available, drawn_place

Numbers = Sequence[float] | NDArray[Any]

_BLOCK = 32
"""Draws that are made together; setting the generator up takes longer than they do."""


class _Uniforms:
    """Draws by key and counter, from one generator: a new one takes four times as long."""

    def __init__(self) -> None:
        self._generator = np.random.Generator(np.random.Philox(key=0))
        self._state: Any = self._generator.bit_generator.state
        self._lock = threading.Lock()

    def block(self, seed: int, block: int) -> list[float]:
        """Return draws of a block of positions: of the four of every counter the first."""
        state = self._state["state"]
        with self._lock:
            state["key"][0], state["counter"][0] = seed, block * _BLOCK
            self._generator.bit_generator.state = self._state
            draws: list[float] = self._generator.random(4 * _BLOCK)[::4].tolist()
        return draws


_block = lru_cache(maxsize=1024)(_Uniforms().block)


def uniform(seed: int, position: int) -> float:
    """Return the draw in [0, 1) that belongs to (seed, position), whatever was drawn before.

    The generator is Philox, whose output is a function of key and counter (Salmon et al. 2011).
    """
    return _block(seed, position // _BLOCK)[position % _BLOCK]


def placed(draw: Draw, seed: int, index: int) -> Draw:
    """Return a draw at the point that belongs to (seed, index), unless it has one."""
    return draw._replace(point=uniform(seed, index)) if math.isnan(draw.point) else draw


def place_of(draw: Draw, values: Numbers, ids: Sequence[int] | NDArray[Any]) -> int:
    """Draw one of the likeliest tokens.

    Args:
        draw: How.
        values: Their logits, likeliest first.
        ids: Their ids, the smallest of equally likely ones first.

    Returns:
        A place among them; -1 where tokens that are not among them may matter.
    """
    if available():
        return drawn_place(draw, array("d", values), array("i", ids))
    return reference_place(draw, np.asarray(values, np.float64), np.asarray(ids, np.int64))


def reference_place(
    draw: Draw, values: NDArray[np.float64], ids: NDArray[np.int64], complete: bool = False
) -> int:
    """Do the same in numpy: what the library is compared with; `complete`: there are no others."""
    if not len(ids):
        return -1
    by_likelihood = np.arange(len(ids))
    if draw.top_p < 1:  # Transformers' nucleus takes the largest id of equals first
        by_likelihood = np.lexsort((-ids, -values))
    weights = np.exp((values[by_likelihood] - values[0]) / draw.temperature)
    count = _drawable(draw, values, weights, complete)
    by_id = ids[by_likelihood[:count]].argsort()
    sums = weights[by_id].cumsum()
    if not count:
        return -1
    gone = int((sums <= draw.point * sums[-1]).sum())
    return int(by_likelihood[by_id[min(gone, count - 1)]])


def reference_id(draw: Draw, logits: NDArray[Any]) -> int:
    """Draw from all tokens in numpy: logits (V,), minus infinity for what is ruled out."""
    values = logits.astype(np.float64)
    weights = np.exp((values - values.max()) / draw.temperature)
    if draw.min_p > 0:
        weights[weights < draw.min_p] = 0
    sums = weights.cumsum()
    gone = int(sums.searchsorted(draw.point * sums[-1], "right"))
    return min(gone, int(weights.nonzero()[0][-1]))


def _drawable(
    draw: Draw, values: NDArray[np.float64], weights: NDArray[np.float64], known: bool
) -> int:
    """How many of the likeliest may be drawn; 0 if more than there are here may.

    Args:
        draw: How.
        values: Logits, likeliest first.
        weights: Relative to the first, in the order in which a nucleus takes them.
        known: There are no others.
    """
    count, least = len(values), values[-1]
    if draw.top_k > 0 and (draw.top_k < count or not known):
        if not draw.top_k < count or (values[int(draw.top_k) - 1] == least and not known):
            return 0
        count, known = int((values >= values[int(draw.top_k) - 1]).sum()), True
    total = weights[:count].cumsum()[-1] if known else draw.total
    if draw.top_p < 1 and not np.isnan(total):
        enough = int((weights.cumsum() < draw.top_p * total).sum()) + 1
        if enough <= count and (known or values[enough - 1] > least):
            count, known = enough, True
    if draw.min_p >= 0:
        enough = min(int((weights >= draw.min_p).sum()), count)
        if known or enough < len(values):
            count, known = enough, True
    return count if known else 0
