"""Selectors: which token to take, given the logits of one position."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from splitformer.generation.filters import likely
from splitformer.generation.options import GenerationOptions


def uniform(seed: int, position: int) -> float:
    """Return the draw in [0, 1) that belongs to (seed, position), whatever was drawn before.

    The generator is Philox, whose output is a function of key and counter (Salmon et al. 2011).
    """
    return float(np.random.Generator(np.random.Philox(key=seed, counter=position)).random())


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
    temperature = 1.0 if options.temperature is None else options.temperature
    probabilities = likely(logits, temperature, options.top_k, options.top_p, options.min_p)
    cumulative = probabilities.cumsum(-1)
    point = uniform(options.seed, position) * float(cumulative[-1])
    taken = int(torch.searchsorted(cumulative, point, right=True))
    return min(taken, int(probabilities.nonzero()[-1]))
