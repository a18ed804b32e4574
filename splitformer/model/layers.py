"""What encoder and decoder share: embeddings, feed-forward networks, residual sublayers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from splitformer.model.config import Activation, NormPlacement, Stack, TransformerConfig
from splitformer.model.positions import fixed_positions

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
}


class Embedding(nn.Module):
    """Token vectors plus position vectors; the only place where one-hot rows would exist.

    Attributes:
        positions: (max_positions, D); None where positions are relative.
    """

    positions: Tensor | None

    def __init__(self, config: TransformerConfig, tokens: nn.Embedding, dropout: float) -> None:
        super().__init__()
        self.tokens = tokens
        self.scale = config.embedding_scale
        self.dropout = nn.Dropout(dropout)
        self.config = config
        if config.positions == "learned":
            self.positions = nn.Parameter(torch.zeros(config.max_positions, config.d_model))
        elif config.positions == "relative":
            self.positions = None
        else:
            self.register_buffer("positions", None, persistent=False)
            self.place_positions()
        self.norm = norm_of(config) if config.normalize_embeddings else None

    def place_positions(self) -> None:
        """Compute fixed position vectors; a model built without memory has to ask for them."""
        fixed = fixed_positions(self.config)
        if fixed is not None:
            self.positions = torch.from_numpy(fixed)

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Embed tokens at given positions.

        Args:
            ids: Token ids, (...), int64.
            positions: Position of each token in its own sequence, broadcastable to `ids`.

        Returns:
            (..., D).
        """
        x = self.tokens(ids) * self.scale
        if self.positions is not None:
            x = x + self.positions[positions]
        if self.norm is not None:
            x = self.norm(x)
        dropped: Tensor = self.dropout(x)
        return dropped


class FeedForward(nn.Module):
    """Weighs the elements inside each vector (Vaswani et al. 2017, section 3.3)."""

    def __init__(self, config: TransformerConfig, stack: Stack) -> None:
        super().__init__()
        width, inner, biases = config.d_model, stack.d_feed_forward, config.biases
        self.activation = ACTIVATIONS[config.activation]
        self.inner = nn.Linear(width, inner, bias=biases)
        self.gate = nn.Linear(width, inner, bias=biases) if config.gated else None
        self.outer = nn.Linear(inner, width, bias=biases)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D), each row by itself."""
        if self.gate is None:
            hidden = self.activation(self.inner(x))  # (..., F)
        else:
            hidden = self.activation(self.gate(x)) * self.inner(x)  # (..., F)
        output: Tensor = self.outer(hidden)
        return output


class Residual(nn.Module):
    """The residual connection and the norm of a sublayer, before it or after the sum."""

    def __init__(self, config: TransformerConfig, dropout: float) -> None:
        super().__init__()
        self.norm = norm_of(config)
        self.placement: NormPlacement = config.norm
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """x + sublayer(norm(x)) if "pre", norm(x + sublayer(x)) if "post"; (..., D) both ways."""
        if self.placement == "pre":
            summed: Tensor = x + self.dropout(sublayer(self.norm(x)))
            return summed
        normed: Tensor = self.norm(x + self.dropout(sublayer(x)))
        return normed


def norm_of(config: TransformerConfig) -> nn.Module:
    """LayerNorm or RMSNorm over D."""
    kind = nn.LayerNorm if config.norm_kind == "layer" else nn.RMSNorm
    return kind(config.d_model, eps=config.norm_epsilon)


def final_norm(config: TransformerConfig) -> nn.Module:
    """Norm at the end of a "pre" stack; "post" stacks have normalised already."""
    return norm_of(config) if config.norm == "pre" else nn.Identity()


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
