"""The copy of a model that computes gradients: its type, its dropout and its attention.

All of it is about the time of a training step on a CPU; what is computed is the model's.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from splitformer.model import Transformer
from splitformer.model.attention import MultiHeadAttention

_STEPS = 256


def worker_of(model: Transformer, dtype: torch.dtype) -> Transformer:
    """Returns a copy that computes in ``dtype``: weights, residual sums and all.

    Autocast, which converts at every operation, took a tenth of the time.
    """
    worker = copy.deepcopy(model).to(dtype).train()
    for module in list(worker.modules()):
        if isinstance(module, MultiHeadAttention):
            module.__class__ = PlainAttention
        for name, part in module.named_children():
            if isinstance(part, nn.Dropout):
                setattr(module, name, ByteDropout(part.p))
    return worker


class ByteDropout(nn.Module):
    """Dropout whose random numbers are bytes.

    torch draws a number of 32 bits or more for every element, which was a quarter of the time of a
    step in bfloat16. One draw of 64 bits serves eight elements here, and the share that is dropped
    is rounded to 256ths.

    Args:
        share: share of the elements to drop, below 1.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.dropped = round(share * _STEPS)
        if not 0 <= self.dropped < _STEPS:
            raise ValueError(f"share: must lie in 0..1, below 1, is {share}")

    def forward(self, x: Tensor) -> Tensor:
        """(...) -> (...)."""
        if not self.training or not self.dropped:
            return x
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64)
        words.random_(torch.iinfo(torch.int64).min, None)
        kept = words.view(torch.uint8)[: x.numel()].view(x.shape) >= self.dropped
        return x * (kept.to(x.dtype) * (_STEPS / (_STEPS - self.dropped)))


class PlainAttention(MultiHeadAttention):
    """Attention in separate products.

    The backward pass of torch's fused one took a third of a step in bfloat16; torch's own separate
    products scale and mask more often than there is need.
    """

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """`attention` with our factor on the scores."""
        scores = (q * self.scale) @ k.transpose(-2, -1)  # (..., H, T, S)
        if mask is not None and mask.dtype is torch.bool:
            mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill_(~mask, -torch.inf)
        if mask is not None:
            scores = scores + mask
        return scores.softmax(-1) @ v
