"""From features of audio to the rows that an encoder's layers take (Radford et al. 2022, 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from splitformer.model.config import TransformerConfig
from splitformer.model.encoding import STRIDE

_WIDTH = 3  # frames that a convolution sees at once


class Hearing(nn.Module):
    """Two convolutions over time, the second of which halves it, and positions.

    Takes the place of an `Embedding` where sources are audio.

    Attributes:
        positions: (longest source, D).
    """

    scale = 1.0
    norm = None

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width = config.d_model
        self.first = nn.Conv1d(config.mel_bins, width, _WIDTH, padding=1)
        self.second = nn.Conv1d(width, width, _WIDTH, stride=STRIDE, padding=1)
        self.positions = nn.Parameter(torch.zeros(config.longest_source, width))

    def place_positions(self) -> None:
        """Do nothing: position vectors are stored with the weights."""

    def forward(self, features: Tensor) -> Tensor:
        """Frames of features (B, 2 S, bins) -> rows (B, S, D)."""
        x = functional.gelu(self.first(features.transpose(1, 2)))  # (B, D, 2 S)
        x = functional.gelu(self.second(x)).transpose(1, 2)  # (B, S, D)
        return x + self.positions[: x.shape[1]]
