"""What an encoder must be able to do for the encoder service: sources in, memories out.

`splitformer.model.native_encoder.NativeEncoder` does it in C++, without torch. `TorchEncoder`
(`splitformer.model.torch_encoder`) does it with the readable torch model: the reference, and the
fallback wherever the native library cannot be used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from splitformer.model.config import TransformerConfig

STRIDE = 2
"""Frames of features per row of a memory of audio."""

Memory = NDArray[np.float32]
"""The encoder's output for one source, (S, D)."""


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """A piece of audio; its length is that of its memory, as the length of tokens is.

    Attributes:
        values: (2 S, bins).
    """

    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.values) // STRIDE


Source = Sequence[int] | Features
"""What an encoder takes in: token ids, at least one, or audio; a model takes one kind only."""


class SourceEncoder(Protocol):
    """A loaded encoder.

    Attributes:
        config: The architecture.
        kernel: Name of its arithmetic, changed whenever any result's bits do.
        precision: "fp32" or "int8".
        batch_invariant: True if a memory is the same bits whatever is encoded beside it.
        padded: True if sources of a batch are filled up to the longest of them, at a cost.
        full_tokens: A batch this long costs about as much per token as longer ones.
    """

    @property
    def config(self) -> TransformerConfig: ...  # noqa: D102

    @property
    def kernel(self) -> str: ...  # noqa: D102

    @property
    def precision(self) -> str: ...  # noqa: D102

    @property
    def batch_invariant(self) -> bool: ...  # noqa: D102

    @property
    def padded(self) -> bool: ...  # noqa: D102

    @property
    def full_tokens(self) -> int: ...  # noqa: D102

    def encode(self, sources: Sequence[Source]) -> list[Memory]:
        """Encode sources together, to memories in their order."""

    def close(self) -> None:
        """Let go of threads and memory."""
