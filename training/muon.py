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
        """Updates every matrix from its gradient; closures are not used."""
        for group in self.param_groups:
            for matrix in group["params"]:
                self._update(matrix, group)

    def _update(self, matrix: nn.Parameter, group: dict[str, Any]) -> None:
        gradient, momentum = matrix.grad, group["momentum"]
        if gradient is None:
            return
        state = self.state[matrix]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        running = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        update = orthogonalized(gradient.lerp(running, momentum).to(self._dtype))
        size = 0.2 * max(matrix.shape) ** 0.5
        matrix.mul_(1 - group["lr"] * group["weight_decay"])
        matrix.add_(update, alpha=-group["lr"] * size)


def orthogonalized(matrix: Tensor) -> Tensor:
    """Returns a matrix with the same singular vectors and singular values near 1."""
    a, b, c = _COEFFICIENTS
    wide: Tensor = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        square = wide @ wide.T
        wide = a * wide + (b * square + c * square @ square) @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T
