"""Positions as learned biases on the scores of self-attention (Raffel et al. 2020, section 2.1).

Distances fall into buckets. A stack has one table, used by all its layers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from splitformer.model.config import TransformerConfig
from splitformer.model.positions import buckets, buckets_by_distance


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
        at = np.arange(keys - queries, keys)  # (T,)
        ahead = np.arange(keys) - at[:, None]  # (T, S)
        found = torch.from_numpy(buckets(ahead, len(self.table), self.distance, self.both_ways))
        return self.table[found.to(self.table.device)].movedim(-1, 0)  # (T, S, H) -> (H, T, S)

    def by_distance(self) -> Tensor:
        """Biases by distance, (H, distances); see `buckets_by_distance`."""
        found = buckets_by_distance(len(self.table), self.distance, self.both_ways)
        return self.table[torch.from_numpy(found).to(self.table.device)].T


def biased(mask: Tensor, bias: Tensor) -> Tensor:
    """A boolean mask and a bias on the scores as one float mask; their shapes broadcast."""
    return bias.masked_fill(~mask, float("-inf"))
