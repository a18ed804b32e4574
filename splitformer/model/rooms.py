"""Where keys and values are kept: blocks of numbers, and the rooms that make them.

The library's own is numpy's arrays; torch's tensors, and pages of a pool on a GPU, have others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike

Block = Any
"""An array or a tensor: both are cut, and written to, by the same expressions."""

_ALIGNMENT = 64
"""Of arrays, in bytes: a line of the processor's caches."""


class Room(Protocol):
    """Where blocks come from.

    Attributes:
        element_bytes: Of one of their elements.
    """

    @property
    def element_bytes(self) -> int: ...  # noqa: D102

    def block(self, shape: tuple[int, ...]) -> Block:
        """Make a block; what is in it is anybody's guess."""

    def page(self, shape: tuple[int, ...]) -> Block:
        """Make, or hand out, one that is a page."""

    def address(self, block: Block) -> int:
        """Where a block begins."""

    def joined(self, blocks: Sequence[Block], axis: int) -> Block:
        """Copy blocks side by side."""


class Arrays:
    """Numpy's arrays, as a `Room`; see there.

    Args:
        kind: Type of their elements.
    """

    def __init__(self, kind: DTypeLike) -> None:
        self._kind = np.dtype(kind)
        self.element_bytes = self._kind.itemsize

    def block(self, shape: tuple[int, ...]) -> Block:
        """Make an array that begins where a line of the processor's caches does."""
        size = math.prod(shape) * self.element_bytes
        room = np.empty(size + _ALIGNMENT, np.uint8)
        begin = -room.ctypes.data % _ALIGNMENT
        return room[begin : begin + size].view(self._kind).reshape(shape)

    page = block

    def address(self, block: Block) -> int:
        """Where an array begins."""
        return int(block.ctypes.data)

    def joined(self, blocks: Sequence[Block], axis: int) -> Block:
        """Copy arrays side by side."""
        return np.concatenate(blocks, axis)
