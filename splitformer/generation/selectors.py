"""Selectors: which token to take, given the logits of one position, all of them or the likeliest.

A draw goes through the tokens in the order of their ids until their weights have reached a point
that (seed, position) decides. Whether all logits are at hand or only as many as matter makes no
difference to what is drawn, but for rounding in the last bit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitformer.generation.filters import Row, likely
from splitformer.generation.options import GenerationOptions
from splitformer.generation.rules import MOST_CANDIDATES
from splitformer.model.drawing import uniform
from splitformer.native import Draw

Ids = NDArray[np.intp]
Weights = NDArray[Any]


def draw_of(options: GenerationOptions) -> Draw:
    """Return how options draw from as many of the likeliest tokens as most often do."""
    given = (options.top_k, options.top_p, options.min_p or None)
    top_k, top_p, min_p = (math.nan if value is None else value for value in given)
    total = 0.0 if needs_row(options) else math.nan
    return Draw(temperature_of(options), top_k, top_p, min_p, math.nan, total, shortlist(options))


def shortlist(options: GenerationOptions) -> int:
    """How many of the likeliest tokens are enough to draw from, most of the time; 0: all are."""
    if options.top_k is not None:  # one more shows whether the k-th has an equal
        return options.top_k + 1
    return MOST_CANDIDATES if (options.top_p or 1.0) < 1 else 0


def needs_row(options: GenerationOptions) -> bool:
    """True if it matters how likely the tokens are that are not among the likeliest."""
    return options.top_k is None and ((options.top_p or 1.0) < 1 or not options.min_p)


def weight_of_all(logits: Row, options: GenerationOptions) -> float:
    """Weight of all tokens (V,) together, relative to the likeliest."""
    return float(_weights(logits, options).sum(dtype=np.float64))


def select(logits: Row, options: GenerationOptions, position: int) -> int:
    """Take the likeliest token, or draw one.

    Args:
        logits: (V,), with minus infinity at tokens that must not be taken.
        options: What the caller asked for.
        position: Index of the token in the target; decides the draw together with the seed.
    """
    if not options.sampled:
        return int(logits.argmax())
    assert options.seed is not None
    ids, weights = _drawable(logits, options)
    cumulative = weights.cumsum(dtype=np.float64)
    point = uniform(options.seed, position) * cumulative[-1]
    taken = int(cumulative.searchsorted(point, "right"))
    if taken == len(weights):
        taken = int(weights.nonzero()[0][-1])
    return taken if ids is None else int(ids[taken])


def temperature_of(options: GenerationOptions) -> float:
    """What divides the logits."""
    return 1.0 if options.temperature is None else options.temperature


def _drawable(logits: Row, options: GenerationOptions) -> tuple[Ids | None, Weights]:
    """Return the tokens that may be drawn, or None for all, and their weights."""
    if options.top_k is None and (options.top_p or 1.0) >= 1:
        return _near(logits, options) if options.min_p else (None, _weights(logits, options))
    temperature = temperature_of(options)
    return None, likely(logits, temperature, options.top_k, options.top_p, options.min_p)


def _near(row: Row, options: GenerationOptions) -> tuple[Ids, Weights]:
    """Return the tokens that are at least so likely as min-p says, and their weights.

    Most are not, by far: those are not looked at more closely.
    """
    assert options.min_p is not None
    temperature, largest = temperature_of(options), float(row.max())
    least = largest + temperature * math.log(options.min_p)
    ids = np.flatnonzero(row >= np.nextafter(np.float32(least), np.float32(-np.inf)))
    weights = np.exp((row[ids].astype(np.float64) - largest) / temperature)
    enough = weights >= options.min_p
    return ids[enough], weights[enough]


def _weights(row: Row, options: GenerationOptions) -> Row:
    """Probabilities relative to the likeliest token's: logits (V,) -> (V,)."""
    weights: Row = np.exp((row - row.max()) / row.dtype.type(temperature_of(options)))
    return weights
