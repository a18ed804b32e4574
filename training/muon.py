"""Muon: momentum whose update is made nearly orthogonal by Newton-Schulz iterations.

Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/. torch's own iterates in bfloat16,
which a CPU without the instructions for it emulates: on Zen 1 that took three times as long as the
gradients of the pronunciation model. This one takes the type that the machine multiplies fast.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, scaled to the size of AdamW's updates (Liu et al. 2025).

    Args:
        matrices: parameters with two dimensions.
        weight_decay: decoupled.
        momentum: share of the running gradient that is kept.
        dtype: type of the iterations.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        weight_decay: float,
        momentum: float,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        defaults = {"lr": 0.0, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(matrices, defaults)
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Updates every matrix from its gradient, those of a shape together; no closures."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    shapes.setdefault(matrix.shape, []).append(matrix)
            for matrices in shapes.values():
                self._update(matrices, group)

    def _update(self, matrices: list[nn.Parameter], group: dict[str, Any]) -> None:
        directions = [self._direction(matrix, group["momentum"]) for matrix in matrices]
        updates = orthogonalized(torch.stack(directions).to(self._dtype)).unbind()
        size = 0.2 * max(matrices[0].shape) ** 0.5
        for matrix, update in zip(matrices, updates, strict=True):
            matrix.mul_(1 - group["lr"] * group["weight_decay"])
            matrix.add_(update, alpha=-group["lr"] * size)

    def _direction(self, matrix: nn.Parameter, momentum: float) -> Tensor:
        state, gradient = self.state[matrix], matrix.grad
        assert gradient is not None
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        running: Tensor = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(running, momentum)


def orthogonalized(matrices: Tensor) -> Tensor:
    """Returns matrices with the same singular vectors and singular values near 1; (..., N, M)."""
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    wide: Tensor = matrices.mT if tall else matrices
    wide = wide / wide.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        square = wide @ wide.mT
        wide = a * wide + (b * square + c * square @ square) @ wide
    return wide.mT if tall else wide
