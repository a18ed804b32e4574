"""Optimizers and the learning-rate schedule.

Hidden weight matrices are trained by Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/
muon/), embeddings, norms and biases by AdamW (Loshchilov and Hutter 2019).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from training.muon import Muon


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """How weights are updated.

    Attributes:
        matrix_rate: peak learning rate of Muon, in units that match AdamW's update size.
        other_rate: peak learning rate of AdamW for everything else.
        weight_decay: decoupled decay of matrices.
        momentum: Muon's momentum.
        warmup: share of the budget over which the rate rises from zero.
        decay: share of the budget, at its end, over which the rate falls to zero.
        clip: gradients are scaled down to this norm at most.
        muon: use Muon for matrices; False trains everything by AdamW.
        bf16: orthogonalise in bfloat16.
    """

    matrix_rate: float = 3e-3
    other_rate: float = 2e-3
    weight_decay: float = 0.01
    momentum: float = 0.95
    warmup: float = 0.01
    decay: float = 0.35
    clip: float = 1.0
    muon: bool = True
    bf16: bool = False

    def __post_init__(self) -> None:
        """Checks that warm-up and decay fit into the budget."""
        if not 0 <= self.warmup <= 1 - self.decay <= 1:
            raise ValueError(
                f"warmup, decay: must lie in 0..1 and sum to 1 at most, are {self.warmup} and "
                f"{self.decay}"
            )

    def scaled(self, share: float) -> OptimizerSettings:
        """Returns settings with peak rates of that share of these."""
        rates = self.matrix_rate * share, self.other_rate * share
        return replace(self, matrix_rate=rates[0], other_rate=rates[1])


def rate_factor(consumed: float, settings: OptimizerSettings) -> float:
    """Returns the share of the peak rate after ``consumed`` (0..1) of the budget."""
    if consumed < settings.warmup:
        return max(consumed / settings.warmup, 0.01)
    if consumed <= 1 - settings.decay:
        return 1.0
    return max(0.0, (1 - consumed) / settings.decay)


class Optimizer:
    """Muon and AdamW behind one face."""

    def __init__(self, model: nn.Module, settings: OptimizerSettings) -> None:
        """Divides the model's parameters between the two."""
        self._settings = settings
        matrices, others = split_parameters(model)
        if not settings.muon:
            matrices, others = [], matrices + others
        self._parameters = [*matrices, *others]
        adam = torch.optim.AdamW(others, betas=(0.9, 0.98), eps=1e-9, weight_decay=0.0, fused=True)
        self._optimizers: list[tuple[torch.optim.Optimizer, float]] = [(adam, settings.other_rate)]
        # One Muon per thread: its many small products gain nothing from threads inside them.
        for share in (matrices[0::2], matrices[1::2]):
            if share:
                self._optimizers.append((self._muon(share), settings.matrix_rate))
        self._threads = ThreadPoolExecutor(2)

    def _muon(self, matrices: list[nn.Parameter]) -> torch.optim.Optimizer:
        settings = self._settings
        dtype = torch.bfloat16 if settings.bf16 else torch.float32
        return Muon(matrices, settings.weight_decay, settings.momentum, dtype)

    def step(self, consumed: float) -> None:
        """Updates the weights from their gradients, then drops the gradients."""
        nn.utils.clip_grad_norm_(self._parameters, self._settings.clip)
        factor = rate_factor(consumed, self._settings)
        for optimizer, peak in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
        list(self._threads.map(lambda pair: pair[0].step(), self._optimizers))
        for parameter in self._parameters:
            parameter.grad = None

    def state_dict(self) -> list[dict[str, Any]]:
        """Returns the state of both."""
        return [optimizer.state_dict() for optimizer, _ in self._optimizers]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Restores what ``state_dict`` returned."""
        for (optimizer, _), state in zip(self._optimizers, states, strict=True):
            optimizer.load_state_dict(state)


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Returns the hidden weight matrices, and everything else (embeddings, norms, biases).

    A tied output projection is the embedding table and counts as one.
    """
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in model.parameters():
        hidden = parameter.ndim == 2 and id(parameter) not in tables
        (matrices if hidden else others).append(parameter)
    return matrices, others
