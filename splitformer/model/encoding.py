"""What an encoder must be able to do for the encoder service: sources in, memories out.

`TorchEncoder` does it with the readable torch model: the reference, and the fallback wherever the
native library cannot be used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from splitformer.model.config import TransformerConfig
from splitformer.model.encoder import Encoder
from splitformer.model.hearing import STRIDE
from splitformer.model.stepping import PRECISION_NAMES

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


class TorchEncoder:
    """A torch encoder as a `SourceEncoder`; see there.

    Args:
        encoder: In evaluation mode, on its device and in its precision.
    """

    kernel = "torch"
    batch_invariant = False
    full_tokens = 512

    def __init__(self, encoder: Encoder) -> None:
        self.config = encoder.config
        self._like = next(encoder.parameters())
        self.precision = PRECISION_NAMES[self._like.dtype]
        self.padded = not encoder.config.mel_bins
        self._encoder = encoder

    @torch.inference_mode()
    def encode(self, sources: Sequence[Source]) -> list[Memory]:
        """Encode texts together, each filled up to the longest of them; audio one by one."""
        if self.config.mel_bins:
            return [self._hear(source) for source in sources if isinstance(source, Features)]
        lengths = [len(source) for source in sources]
        padded = np.zeros((len(sources), max(lengths)), np.int64)
        for row, source in enumerate(sources):
            assert not isinstance(source, Features)
            padded[row, : lengths[row]] = source
        output = self._run(torch.from_numpy(padded), lengths)  # (B, S, D)
        return [row[:length] for row, length in zip(output, lengths, strict=True)]

    def _hear(self, source: Features) -> Memory:
        features = torch.from_numpy(source.values)[None]  # (1, 2 S, bins)
        memory: Memory = self._run(features.to(self._like.dtype), [len(source)])[0]
        return memory

    def _run(self, source: Tensor, lengths: list[int]) -> NDArray[np.float32]:
        device = self._like.device
        output = self._encoder(source.to(device), torch.tensor(lengths, device=device))
        memories: NDArray[np.float32] = output.float().cpu().numpy()
        return memories

    def close(self) -> None:
        """Nothing is held beyond the weights."""
