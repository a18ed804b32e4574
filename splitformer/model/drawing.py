"""Draws of a token: in the native library, or the same in numpy where there is none.

The order is that of Transformers: top-k, top-p, min-p. What is left is gone through in the order of
ids, so that it does not matter whether a draw saw all tokens or only these.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitformer.native import Draw, available, drawn_place

Numbers = Sequence[float] | NDArray[Any]


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
