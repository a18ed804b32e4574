"""Logit filters: each takes the logits of one position and returns them with tokens ruled out.

A token that is ruled out has the logit minus infinity. The definitions are those of Hugging Face
Transformers' logits processors, which the tests compare with.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Rule out tokens less than p times as likely as the likeliest: (V,) -> (V,)."""
    probabilities = logits.softmax(-1)
    return logits.masked_fill(probabilities < p * probabilities.max(), RULED_OUT)


def penalise(logits: Tensor, seen: Sequence[int], penalty: float) -> Tensor:
    """Divide positive and multiply negative logits of tokens that were seen: (V,) -> (V,)."""
    ids = torch.tensor(sorted(set(seen)))
    taken = logits[ids]
    return logits.index_put((ids,), torch.where(taken < 0, taken * penalty, taken / penalty))


def completing(seen: Sequence[int], size: int) -> list[int]:
    """Return the tokens that would complete an n-gram of this size that was seen already."""
    if len(seen) < size:
        return []
    if size == 1:
        return list(seen)
    begun, last = list(seen[len(seen) - size + 1 :]), seen[-1]
    ends = [i for i in range(size - 2, len(seen) - 1) if seen[i] == last]
    return [seen[i + 1] for i in ends if list(seen[i - size + 2 : i + 1]) == begun]


def likely(
    logits: Tensor,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None = None,
) -> Tensor:
    """Temperature, top-k, top-p, min-p: logits (V,) -> probabilities (V,), float64."""
    scaled = logits.double() / temperature
    if top_k is not None:
        scaled = keep_top_k(scaled, top_k)
    if top_p is not None and top_p < 1:
        scaled = keep_top_p(scaled, top_p)
    if min_p is not None:
        scaled = keep_min_p(scaled, min_p)
    return torch.softmax(scaled, dim=-1)
