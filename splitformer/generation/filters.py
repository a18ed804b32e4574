"""Logit filters: each takes the logits of one position and returns them with tokens ruled out.

A token that is ruled out has the logit minus infinity. The definitions are those of Hugging Face
Transformers' logits processors, which the tests compare with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitformer.model.stepping import RULED_OUT, Candidates

Row = NDArray[np.floating[Any]]
"""Logits or probabilities of one position, (V,); never written to by whoever is given them."""


def suppress(logits: Row, tokens: Sequence[int]) -> Row:
    """Rule out given ids: (V,) -> (V,)."""
    left = logits.copy()
    left[list(tokens)] = RULED_OUT
    return left


def biased(logits: Row, bias: Sequence[tuple[int, float]]) -> Row:
    """Add to the logits of given ids, each given once: (V,) -> (V,)."""
    ids, values = zip(*bias, strict=True)
    moved = logits.copy()
    moved[list(ids)] += np.asarray(values, logits.dtype)
    return moved


def keep_top_k(logits: Row, k: int) -> Row:
    """Rule out all but the k likeliest: (V,) -> (V,). Tokens equal to the k-th stay."""
    place = len(logits) - min(k, len(logits))
    return _ruled_out(logits, logits < np.partition(logits, place)[place])


def keep_top_p(logits: Row, p: float) -> Row:
    """Rule out the tail beyond the likeliest tokens whose probabilities reach p: (V,) -> (V,)."""
    order = logits.argsort(kind="stable")
    tail = softmax(logits[order]).cumsum()
    tail[-1] = 2.0  # the likeliest token always stays
    return suppress(logits, order[tail <= 1 - p].tolist())


def keep_min_p(logits: Row, p: float) -> Row:
    """Rule out tokens less than p times as likely as the likeliest: (V,) -> (V,)."""
    probabilities = softmax(logits)
    return _ruled_out(logits, probabilities < p * probabilities.max())


def penalise(logits: Row, seen: Sequence[int], penalty: float) -> Row:
    """Divide positive and multiply negative logits of tokens that were seen: (V,) -> (V,)."""
    ids, left = sorted(set(seen)), logits.copy()
    left[ids] = np.where(left[ids] < 0, left[ids] * penalty, left[ids] / penalty)
    return left


def likely(
    logits: Row,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None = None,
) -> Row:
    """Temperature, top-k, top-p, min-p: logits (V,) -> probabilities (V,), float64."""
    scaled: Row = logits.astype(np.float64) / temperature
    if top_k is not None:
        scaled = keep_top_k(scaled, top_k)
    if top_p is not None and top_p < 1:
        scaled = keep_top_p(scaled, top_p)
    if min_p is not None:
        scaled = keep_min_p(scaled, min_p)
    return softmax(scaled)


def likeliest(logits: Row, count: int) -> Candidates:
    """Return the `count` likeliest ids of (V,) that are not ruled out, and their logits."""
    place = len(logits) - min(count, len(logits))
    least = max(np.partition(logits, place)[place], np.finfo(logits.dtype).min)
    possible = (logits >= least).nonzero()[0]
    ids = possible[(-logits[possible]).argsort(kind="stable")[:count]]
    return Candidates(ids.tolist(), logits[ids].tolist())


def softmax(logits: Row) -> Row:
    """Logits (V,) -> probabilities (V,)."""
    weights = np.exp(logits - logits.max())
    probabilities: Row = weights / weights.sum()
    return probabilities


def _ruled_out(logits: Row, which: NDArray[np.bool_]) -> Row:
    left = logits.copy()
    left[which] = RULED_OUT
    return left
