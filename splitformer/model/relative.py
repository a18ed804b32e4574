"""Positions as learned biases on the scores of self-attention (Raffel et al. 2020, section 2.1).

Distances fall into buckets: small ones into one each, larger ones into logarithmically wider ones,
and all from some distance on into the last. A stack has one table, used by all its layers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from splitformer.model.config import TransformerConfig


class RelativeBias(nn.Module):
    """A bias per bucket and head.

    Args:
        config: The architecture.
        heads: H.
        both_ways: True in encoders: half of the buckets are for keys behind the query. In decoders
            there are none, and all buckets are for keys before it.
    """

    def __init__(self, config: TransformerConfig, heads: int, both_ways: bool) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(config.relative_buckets, heads))
        self.distance = config.relative_distance
        self.both_ways = both_ways

    def forward(self, queries: int, keys: int) -> Tensor:
        """Biases of the last `queries` of `keys` positions towards all of them: (H, T, S)."""
        device = self.table.device
        at = torch.arange(keys - queries, keys, device=device)  # (T,)
        ahead = torch.arange(keys, device=device) - at[:, None]  # (T, S)
        return self.table[self.buckets(ahead)].movedim(-1, 0)  # (T, S, H) -> (H, T, S)

    def buckets(self, ahead: Tensor) -> Tensor:
        """How far keys are ahead of their queries, to buckets; of the same shape."""
        count = self.table.shape[0]
        if self.both_ways:
            count //= 2
            return torch.where(ahead > 0, count, 0) + self._buckets(ahead.abs(), count)
        return self._buckets((-ahead).clamp(min=0), count)

    def _buckets(self, distance: Tensor, count: int) -> Tensor:
        exact = count // 2
        # In float32 and in this order, as the published checkpoints were trained.
        steps = torch.log(distance.clamp(min=1).float() / exact) / math.log(self.distance / exact)
        wide = (exact + (steps * (count - exact)).long()).clamp(max=count - 1)
        return torch.where(distance < exact, distance, wide)

    def by_distance(self) -> Tensor:
        """Biases by distance, for kernels that take them so.

        Returns:
            Of decoders (H, distances), for a key so many positions before its query; of encoders
            (H, 2 * distances - 1), for keys from `distances - 1` before to as many behind it. The
            outermost hold for all that are farther.
        """
        last = self.distance
        ahead = torch.arange(-last, last + 1) if self.both_ways else -torch.arange(last + 1)
        return self.table[self.buckets(ahead.to(self.table.device))].T


def biased(mask: Tensor, bias: Tensor) -> Tensor:
    """A boolean mask and a bias on the scores as one float mask; their shapes broadcast."""
    return bias.masked_fill(~mask, float("-inf"))
