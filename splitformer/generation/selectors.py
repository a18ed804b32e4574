"""Selectors: which token to take, given the logits of one position, all of them or the likeliest.

A draw goes through the tokens in the order of their ids until their weights have reached a point
that (seed, position) decides. Whether all logits are at hand or only as many as matter makes no
difference to what is drawn, but for rounding in the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from splitformer.generation.filters import likely
from splitformer.generation.options import GenerationOptions
from splitformer.generation.rules import MOST_CANDIDATES

Values = NDArray[np.float64]

_BLOCK = 32
"""Draws that are made together; setting the generator up takes longer than they do."""


def uniform(seed: int, position: int) -> float:
    """Return the draw in [0, 1) that belongs to (seed, position), whatever was drawn before.

    The generator is Philox, whose output is a function of key and counter (Salmon et al. 2011).
    """
    return _uniforms(seed, position // _BLOCK)[position % _BLOCK]


@lru_cache(maxsize=1024)
def _uniforms(seed: int, block: int) -> list[float]:
    """Return the draws of a block of positions: every counter gives four, the first is taken."""
    generator = np.random.Generator(np.random.Philox(key=seed, counter=block * _BLOCK))
    draws: list[float] = generator.random(4 * _BLOCK)[::4].tolist()
    return draws


def shortlist(options: GenerationOptions) -> int:
    """How many of the likeliest tokens are enough to draw from, most of the time; 0: none are."""
    if options.top_k is not None:  # one more shows whether the k-th has an equal
        return options.top_k + 1 if options.top_k < MOST_CANDIDATES else 0
    narrow = options.min_p is not None or (options.top_p or 1.0) < 1
    return MOST_CANDIDATES if narrow else 0


def needs_row(options: GenerationOptions) -> bool:
    """True if it matters how likely the tokens are that are not among the likeliest."""
    return options.top_k is None and ((options.top_p or 1.0) < 1 or options.min_p is None)


def weights_of(logits: Tensor, options: GenerationOptions) -> Tensor:
    """Probabilities relative to the likeliest token's: logits (V,) -> (V,), float32."""
    return torch.exp((logits - logits.max()) / _temperature(options))


def select(logits: Tensor, options: GenerationOptions, position: int) -> int:
    """Take the likeliest token, or draw one.

    Args:
        logits: (V,), with minus infinity at tokens that must not be taken.
        options: What the caller asked for.
        position: Index of the token in the target; decides the draw together with the seed.
    """
    if not options.sampled:
        return int(logits.argmax())
    assert options.seed is not None
    if options.top_k is None and options.min_p is None and (options.top_p or 1.0) >= 1:
        weights = weights_of(logits, options)
    else:
        temperature = _temperature(options)
        weights = likely(logits, temperature, options.top_k, options.top_p, options.min_p)
    cumulative = weights.cumsum(-1, dtype=torch.float64)
    point = uniform(options.seed, position) * float(cumulative[-1])
    taken = int(torch.searchsorted(cumulative, point, right=True))
    return taken if taken < len(weights) else int(weights.nonzero()[-1])


def place_among(
    ids: Sequence[int],
    logits: Sequence[float],
    options: GenerationOptions,
    position: int,
    total: float | None = None,
) -> int | None:
    """Draw a token from the likeliest ones, as `select` does from all.

    Args:
        ids: The likeliest tokens, likeliest first, of equals the smallest; at least one.
        logits: Their logits.
        options: What the caller asked for.
        position: Index of the token in the target.
        total: Weight of all tokens, relative to the likeliest; if `needs_row`.

    Returns:
        Its place among them; None if tokens that are not among these may matter.
    """
    assert options.seed is not None
    values, tokens = np.array(logits), np.array(ids)
    weights = np.exp((values - values[0]) / _temperature(options))
    order = None
    if options.top_p is not None and (values[1:] == values[:-1]).any():
        order = np.lexsort((-tokens, -values))  # Transformers' order of equals
        values, tokens, weights = values[order], tokens[order], weights[order]
    count = _kept(values, weights, options, total)
    if count is None:
        return None
    by_id = tokens[:count].argsort()
    cumulative = weights[by_id].cumsum()
    point = uniform(options.seed, position) * cumulative[-1]
    place = by_id[min(int(cumulative.searchsorted(point, "right")), count - 1)]
    return int(place if order is None else order[place])


def _kept(
    logits: Values, weights: Values, options: GenerationOptions, total: float | None
) -> int | None:
    """How many of the likeliest tokens may be drawn; None if more than there are here may."""
    count: int | None = None
    if options.top_k is not None:
        count = _first(logits, options.top_k)
        if count is None:
            return None
        total = float(weights[:count].sum())
    if options.top_p is not None and options.top_p < 1:
        assert total is not None
        enough = int(weights[:count].cumsum().searchsorted(options.top_p * total)) + 1
        within = enough <= len(weights[:count])
        if within and (count is not None or logits[enough - 1] > logits[-1]):
            count = enough
    if options.min_p is not None:
        enough = int((weights[:count] >= options.min_p).sum())
        count = enough if count is not None or enough < len(weights) else None
    return count


def _first(logits: Values, count: int) -> int | None:
    """How many are as likely as the `count`-th, or likelier; None if it cannot be known."""
    if len(logits) <= count or logits[-1] == logits[count - 1]:
        return None
    return int((logits >= logits[count - 1]).sum())


def _temperature(options: GenerationOptions) -> float:
    return 1.0 if options.temperature is None else options.temperature
