"""Gradients of one step, computed by threads that each take whole micro-batches.

On a machine shared with other work this beats splitting every operation over the threads: there are
no barriers inside the step, so a thread that loses its core delays one micro-batch, not every
operation. Sums are taken in the order of the micro-batches: the result does not depend on timing.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from splitformer.model import Transformer
from training.data import Batch
from training.loss import output_cross_entropy
from training.tokenizer import PAD
from training.worker import worker_of


@dataclass(frozen=True, slots=True)
class StepLoss:
    """What a step measured.

    Attributes:
        loss: mean cross-entropy with label smoothing, nats per token.
        likelihood: mean negative log-likelihood, nats per token.
        tokens: target tokens.
    """

    loss: float
    likelihood: float
    tokens: int


def batch_loss(
    model: Transformer, batch: Batch, smoothing: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Returns the summed loss and negative log-likelihood of a batch, teacher-forced.

    Each source is encoded once, whatever number of targets it has. What takes part in products is
    converted to ``dtype`` if that is not float32, else the model computes in its own type.
    """
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        memory = model.encode(batch.source, batch.lengths)  # (B, S, D)
        hidden = model.decode(batch.target, memory[batch.rows], batch.lengths[batch.rows])
    wanted = batch.labels != PAD  # (N, T)
    weight = model.decoder.output.weight
    rows = hidden[wanted] if dtype is torch.float32 else hidden[wanted].to(dtype)
    return output_cross_entropy(rows, weight, batch.labels[wanted], smoothing)


class GradientPool:
    """Computes gradients of several micro-batches on a fixed number of threads."""

    def __init__(
        self, model: Transformer, threads: int, smoothing: float, dtype: torch.dtype
    ) -> None:
        """Makes the threads; operations inside them stay single-threaded."""
        torch.set_num_threads(1)
        self._parameters: list[Tensor] = list(model.parameters())
        self._worker = worker_of(model, dtype)
        self._copies: list[Tensor] = list(self._worker.parameters())
        self._pool = ThreadPoolExecutor(threads)
        self._smoothing = smoothing

    def accumulate(self, batches: Sequence[Batch]) -> StepLoss:
        """Leaves the mean gradient over all batches' tokens in the parameters' ``grad``."""
        tokens = sum(batch.tokens for batch in batches)
        with torch.no_grad():
            torch._foreach_copy_(self._copies, self._parameters)
        jobs = [self._pool.submit(self._gradients, batch, tokens) for batch in batches]
        loss = likelihood = 0.0
        for job in jobs:
            gradients, summed, summed_likelihood = job.result()
            loss += summed
            likelihood += summed_likelihood
            for parameter, gradient in zip(self._parameters, gradients, strict=True):
                if parameter.grad is None:
                    parameter.grad = gradient.to(parameter.dtype)
                else:
                    parameter.grad += gradient
        return StepLoss(loss / tokens, likelihood / tokens, tokens)

    def _gradients(self, batch: Batch, tokens: int) -> tuple[Sequence[Tensor], float, float]:
        loss, likelihood = batch_loss(self._worker, batch, self._smoothing, torch.float32)
        gradients = torch.autograd.grad(loss / tokens, self._copies)
        return gradients, loss.item(), likelihood.item()

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown()


def evaluate_likelihood(model: Transformer, batches: Sequence[Batch], dtype: torch.dtype) -> float:
    """Returns the negative log-likelihood of the batches, nats per token."""
    total, tokens = 0.0, 0
    with torch.inference_mode():
        for batch in batches:
            total += batch_loss(model, batch, 0.0, dtype)[1].item()
            tokens += batch.tokens
    return total / max(tokens, 1)
