"""Attention: one function without parameters, and the linear maps around it.

The function is softmax(Q K^T / sqrt(K)) V (Vaswani et al. 2017, equation 1) and has nothing to
learn. `MultiHeadAttention` holds what is learned: three linear maps at the entrance, which make
queries, keys and values different even where they come from the same matrix, and one at the exit.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from splitformer.model.config import Stack, TransformerConfig


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Cut each vector into one piece per head: (..., N, D) -> (..., H, N, K)."""
    pieces: Tensor = x.unflatten(-1, (heads, -1))  # (..., N, H, K)
    return pieces.transpose(-3, -2)


def join_heads(x: Tensor) -> Tensor:
    """Undo `split_heads`: (..., H, N, K) -> (..., N, D)."""
    return x.transpose(-3, -2).flatten(-2)  # (..., N, H, K) -> (..., N, H*K)


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """Mix the rows of `v` by how well each key answers each query.

    Args:
        q: Queries, (..., H, T, K).
        k: Keys, (..., H, S, K).
        v: Values, (..., H, S, K).
        mask: Broadcastable to (..., H, T, S). Boolean: True where a query may look. Float: added
            to the scores. None: queries look everywhere.
        scale: Factor on the scores before the mask is added; None: 1 / sqrt(K).

    Returns:
        (..., H, T, K).
    """
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


def causal_mask(queries: int, keys: int, device: torch.device) -> Tensor:
    """Let each of the last `queries` positions look at itself and at what came before it.

    Returns:
        Boolean (queries, keys); row i, the position keys - queries + i, is True up to that
        position.
    """
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


class MultiHeadAttention(nn.Module):
    """The learned linear maps around `attention` (Vaswani et al. 2017, section 3.2.2)."""

    def __init__(self, config: TransformerConfig, stack: Stack) -> None:
        super().__init__()
        d_model, width, biases = config.d_model, stack.width, config.biases
        self.heads = stack.heads
        self.scale = stack.head_size**-0.5 if config.scale_attention else 1.0
        self.query = nn.Linear(d_model, width, bias=biases)
        self.key = nn.Linear(d_model, width, bias=biases)
        self.value = nn.Linear(d_model, width, bias=biases)
        self.output = nn.Linear(width, d_model, bias=biases)

    def project_query(self, x: Tensor) -> Tensor:
        """(..., T, D) -> (..., H, T, K)."""
        return split_heads(self.query(x), self.heads)

    def project_key_value(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Two different linear maps of one matrix: (..., S, D) -> two of (..., H, S, K)."""
        return split_heads(self.key(x), self.heads), split_heads(self.value(x), self.heads)

    def forward(self, x: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend from every row of `x` to the rows of `source`.

        Args:
            x: Where the queries come from, (..., T, D).
            source: Where keys and values come from, (..., S, D); `x` itself in self-attention.
            mask: As in `attention`.

        Returns:
            (..., T, D).
        """
        k, v = self.project_key_value(source)
        return self.merge(self.attend(self.project_query(x), k, v, mask))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """`attention` with our factor on the scores."""
        return attention(q, k, v, mask, self.scale)

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        """How much `attend` takes of each row without a mask: (H, T, K), (H, S, K) -> (H, T, S)."""
        scores: Tensor = q @ k.transpose(-2, -1) * self.scale
        return scores.softmax(-1)

    def merge(self, mixed: Tensor) -> Tensor:
        """Join the heads and apply the output map: (..., H, T, K) -> (..., T, D)."""
        output: Tensor = self.output(join_heads(mixed))
        return output
