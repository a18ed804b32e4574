"""The readable torch encoder as a `SourceEncoder`: the reference, and the fallback."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from splitformer.model.encoder import Encoder
from splitformer.model.encoding import Features, Memory, Source
from splitformer.model.torch_decoder import PRECISION_NAMES


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
