"""Logit filters: each takes the logits of one position and returns them with tokens ruled out.

A token that is ruled out has the logit minus infinity. The definitions are those of Hugging Face
Transformers' logits warpers, which the tests compare with.
"""

from __future__ import annotations

import torch
from torch import Tensor

from splitformer.model.stepping import RULED_OUT


def suppress(logits: Tensor, tokens: Tensor) -> Tensor:
    """Rule out given ids: logits (..., V), tokens (n,)."""
    return logits.index_fill(-1, tokens, RULED_OUT)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Rule out all but the k likeliest: (V,) -> (V,). Tokens equal to the k-th stay."""
    threshold = logits.topk(min(k, logits.shape[-1])).values[-1]
    return logits.masked_fill(logits < threshold, RULED_OUT)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Rule out the tail beyond the likeliest tokens whose probabilities reach p: (V,) -> (V,)."""
    ascending, order = logits.sort(stable=True)
    tail = ascending.softmax(-1).cumsum(-1)
    tail[-1] = 2.0  # the likeliest token always stays
    return logits.index_fill(-1, order[tail <= 1 - p], RULED_OUT)


def likely(logits: Tensor, temperature: float, top_k: int | None, top_p: float | None) -> Tensor:
    """Temperature, then top-k, then top-p: logits (V,) -> probabilities (V,), float64."""
    scaled = logits.double() / temperature
    if top_k is not None:
        scaled = keep_top_k(scaled, top_k)
    if top_p is not None and top_p < 1:
        scaled = keep_top_p(scaled, top_p)
    return torch.softmax(scaled, dim=-1)
