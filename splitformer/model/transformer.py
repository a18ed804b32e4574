"""The whole machine: encoder and decoder, and the seam between them.

The seam is the paper's: `encode` gives the memory, `begin` hands it over (projecting it once),
`step` runs the loop. The services run one half each, `Encoder` and `Decoder`; this class puts both
in one process, for training and as the reference of everything else.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from splitformer.model.cache import DecoderState
from splitformer.model.config import TransformerConfig
from splitformer.model.decoder import Decoder
from splitformer.model.encoder import Encoder


class Transformer(nn.Module):
    """Encoder and decoder of Vaswani et al. 2017.

    Args:
        config: The architecture.
        dropout: Applied to embeddings and sublayer outputs while training.
    """

    def __init__(self, config: TransformerConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config, dropout=dropout)
        shared = self.encoder.tokens if config.share_embeddings else None
        self.decoder = Decoder(config, tokens=shared, dropout=dropout)

    def forward(self, source: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
        """Sources (B, S), their lengths (B,), decoder inputs (B, T) -> logits (B, T, V)."""
        memory = self.encode(source, lengths)
        return self.unembed(self.decode(target, memory, lengths))

    def encode(self, source: Tensor, lengths: Tensor) -> Tensor:
        """Token ids (B, S) and their counts (B,) -> memory (B, S, D)."""
        memory: Tensor = self.encoder(source, lengths)
        return memory

    def decode(self, target: Tensor, memory: Tensor, lengths: Tensor) -> Tensor:
        """Teacher-forced decoder inputs (B, T) over memories (B, S, D) -> (B, T, D)."""
        hidden: Tensor = self.decoder(target, memory, lengths)
        return hidden

    def unembed(self, hidden: Tensor) -> Tensor:
        """(..., D) -> logits (..., V)."""
        return self.decoder.unembed(hidden)

    def begin(self, memory: Tensor) -> DecoderState:
        """Start a sequence over one memory (S, D)."""
        return self.decoder.begin(memory)

    def step(self, tokens: Sequence[Sequence[int]], states: Sequence[DecoderState]) -> Tensor:
        """Feed new tokens to B sequences; return the logits after the last of each, (B, V)."""
        return self.decoder.step(tokens, states)
