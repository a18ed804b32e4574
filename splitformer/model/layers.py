"""What encoder and decoder share: embeddings, feed-forward networks, residual sublayers."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from splitformer.model.config import Activation, NormPlacement, TransformerConfig

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
}


def sinusoidal_positions(count: int, d_model: int) -> Tensor:
    """Fixed position vectors (Vaswani et al. 2017, section 3.5), sines first, then cosines.

    The paper interleaves sine and cosine; its own implementation (tensor2tensor) and the published
    checkpoints concatenate them, and so do we. The two differ by a permutation of columns.

    Returns:
        (count, D), float32.
    """
    half = d_model // 2
    rates = torch.exp(torch.arange(half, dtype=torch.float64) * (-math.log(10000.0) * 2 / d_model))
    angles = torch.arange(count, dtype=torch.float64)[:, None] * rates  # (count, D/2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1).float()  # (count, D)


class Embedding(nn.Module):
    """Token vectors plus position vectors; the only place where one-hot rows would exist."""

    positions: Tensor

    def __init__(self, config: TransformerConfig, tokens: nn.Embedding, dropout: float) -> None:
        super().__init__()
        self.tokens = tokens
        self.scale = config.embedding_scale
        self.dropout = nn.Dropout(dropout)
        if config.positions == "learned":
            self.positions = nn.Parameter(torch.zeros(config.max_positions, config.d_model))
        else:
            table = sinusoidal_positions(config.max_positions, config.d_model)
            self.register_buffer("positions", table, persistent=False)
        width = config.d_model
        self.norm = (
            nn.LayerNorm(width, config.norm_epsilon) if config.normalize_embeddings else None
        )

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Embed tokens at given positions.

        Args:
            ids: Token ids, (...), int64.
            positions: Position of each token in its own sequence, broadcastable to `ids`.

        Returns:
            (..., D).
        """
        x = self.tokens(ids) * self.scale + self.positions[positions]
        if self.norm is not None:
            x = self.norm(x)
        dropped: Tensor = self.dropout(x)
        return dropped


class FeedForward(nn.Module):
    """Weighs the elements inside each vector (Vaswani et al. 2017, section 3.3)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.inner = nn.Linear(config.d_model, config.d_feed_forward)
        self.gate = nn.Linear(config.d_model, config.d_feed_forward) if config.gated else None
        self.outer = nn.Linear(config.d_feed_forward, config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D), each row by itself."""
        if self.gate is None:
            hidden = self.activation(self.inner(x))  # (..., F)
        else:
            hidden = self.activation(self.gate(x)) * self.inner(x)  # (..., F)
        output: Tensor = self.outer(hidden)
        return output


class Residual(nn.Module):
    """The residual connection and LayerNorm around a sublayer, before it or after the sum."""

    def __init__(self, config: TransformerConfig, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.d_model, config.norm_epsilon)
        self.placement: NormPlacement = config.norm
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """x + sublayer(norm(x)) if "pre", norm(x + sublayer(x)) if "post"; (..., D) both ways."""
        if self.placement == "pre":
            summed: Tensor = x + self.dropout(sublayer(self.norm(x)))
            return summed
        normed: Tensor = self.norm(x + self.dropout(sublayer(x)))
        return normed


def final_norm(config: TransformerConfig) -> nn.Module:
    """LayerNorm at the end of a "pre" stack; "post" stacks have normalised already."""
    if config.norm == "pre":
        return nn.LayerNorm(config.d_model, config.norm_epsilon)
    return nn.Identity()


def initialise(module: nn.Module) -> None:
    """Xavier for linear maps, then N(0, 1/D) for embeddings: scaled by sqrt(D) they have unit size.

    Embeddings come last because a tied output projection is the same tensor.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for part in module.modules():
        if isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=part.embedding_dim**-0.5)
