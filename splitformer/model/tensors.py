"""Keys and values as torch's tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Tensors:
    """Tensors of one type on one device, as a `Room` (`splitformer.model.cache`); see there.

    Args:
        like: One of that type on that device.
    """

    def __init__(self, like: Tensor) -> None:
        self._like = like.detach()
        self.element_bytes = like.element_size()

    def block(self, shape: tuple[int, ...]) -> Tensor:
        """Make a tensor."""
        with torch.inference_mode(False):  # or it could be written to in inference mode only
            return self._like.new_empty(shape)

    def page(self, shape: tuple[int, ...]) -> Tensor:
        """Make a tensor."""
        return self.block(shape)

    def address(self, block: Tensor) -> int:
        """Where a tensor begins."""
        return block.data_ptr()

    def joined(self, blocks: Sequence[Tensor], axis: int) -> Tensor:
        """Copy tensors side by side."""
        return torch.cat(list(blocks), axis)
