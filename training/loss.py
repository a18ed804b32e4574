"""Cross-entropy over a large vocabulary without ever holding all logits.

Logits, softmax and their gradient are made chunk by chunk, each small enough for the cache, and
thrown away: on a CPU this halves the time of the output layer. The idea is that of Hsu et al. 2024,
"Liger Kernel" (https://arxiv.org/abs/2410.10989), in plain torch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

CHUNK = 256
"""Rows whose logits exist at a time."""


class _OutputCrossEntropy(Function):
    """Forward computes the loss and, in the same pass, the gradients of both inputs."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        """Returns the smoothed loss and the plain negative log-likelihood, both sums."""
        work = weight.to(hidden.dtype)  # (V, D)
        hidden_gradient = torch.empty_like(hidden)
        weight_gradient = torch.zeros_like(weight, dtype=torch.float32)
        loss, likelihood = weight_gradient.new_zeros(()), weight_gradient.new_zeros(())
        floor = smoothing / len(weight)
        for start in range(0, len(hidden), CHUNK):
            rows, wanted = hidden[start : start + CHUNK], labels[start : start + CHUNK]
            logits = (rows @ work.T).float()  # (C, V)
            log_sum = logits.logsumexp(-1)  # (C,)
            chosen = logits.gather(-1, wanted[:, None]).squeeze(-1)
            likelihood += (log_sum - chosen).sum()
            smooth = (1 - smoothing) * chosen + floor * logits.sum(-1)
            loss += (log_sum - smooth).sum()
            gradient = logits.sub_(log_sum[:, None]).exp_().sub_(floor)  # softmax - target
            gradient.scatter_add_(
                -1, wanted[:, None], gradient.new_full((len(rows), 1), smoothing - 1)
            )
            low = gradient.to(hidden.dtype)
            hidden_gradient[start : start + CHUNK] = low @ work
            weight_gradient += low.T @ rows
        ctx.save_for_backward(hidden_gradient, weight_gradient.to(weight.dtype))
        ctx.mark_non_differentiable(likelihood)
        return loss, likelihood

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, None, None]:
        """Scales the gradients that forward left."""
        hidden, weight = ctx.saved_tensors
        scale = gradients[0]
        return hidden * scale.to(hidden.dtype), weight * scale.to(weight.dtype), None, None


def output_cross_entropy(
    hidden: Tensor, weight: Tensor, labels: Tensor, smoothing: float
) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy of ``hidden @ weight.T`` against labels.

    Args:
        hidden: decoder output at the positions that count, (N, D), any float type.
        weight: output projection, (V, D), float32.
        labels: wanted ids, (N,), int64.
        smoothing: share of the target spread evenly over the vocabulary.

    Returns:
        The loss with smoothing, differentiable, and the plain negative log-likelihood in nats.
    """
    loss, likelihood = _OutputCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden, weight, labels, smoothing
    )
    return loss, likelihood
