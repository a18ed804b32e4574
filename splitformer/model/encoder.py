"""The encoder: from source tokens to the memory, all positions at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from splitformer.model.attention import MultiHeadAttention
from splitformer.model.config import TransformerConfig
from splitformer.model.hearing import Hearing
from splitformer.model.layers import Embedding, FeedForward, Residual, final_norm, initialise
from splitformer.model.relative import RelativeBias, biased


class EncoderLayer(nn.Module):
    """Self-attention, then a feed-forward network, each inside a residual connection."""

    def __init__(self, config: TransformerConfig, dropout: float) -> None:
        super().__init__()
        stack = config.encoder
        self.self_attention = MultiHeadAttention(config, stack)
        self.self_attention_residual = Residual(config, dropout)
        self.feed_forward = FeedForward(config, stack)
        self.feed_forward_residual = Residual(config, dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, S, D) -> (B, S, D); `mask` as in `attention`."""
        x = self.self_attention_residual(x, lambda y: self.self_attention(y, y, mask))
        output: Tensor = self.feed_forward_residual(x, self.feed_forward)
        return output


class Encoder(nn.Module):
    """A stack of encoder layers over embedded tokens (Vaswani et al. 2017, section 3.1), or audio.

    What flows between the layers is one matrix per source, (S, D); the last one is the memory.
    """

    def __init__(self, config: TransformerConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.embedding: Embedding | Hearing
        if config.mel_bins:
            self.embedding = Hearing(config)
        else:
            tokens = nn.Embedding(config.source_vocabulary_size, config.d_model)
            self.embedding = Embedding(config, tokens, dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(config, dropout) for _ in range(config.encoder_layers)
        )
        self.norm = final_norm(config)
        relative = config.positions == "relative"
        self.position_bias = RelativeBias(config, config.heads, True) if relative else None
        initialise(self)

    def forward(self, source: Tensor, lengths: Tensor) -> Tensor:
        """Encode a padded batch.

        Args:
            source: Token ids, (B, S), int64, or features of audio, (B, 2 S, bins); what lies beyond
                a row's length is ignored.
            lengths: Rows of each memory, (B,), int64, each at least 1.

        Returns:
            (B, S, D); rows beyond a source's length hold no meaning.
        """
        x = self._embed(source)  # (B, S, D)
        mask = padding_mask(lengths, x.shape[1])
        if self.position_bias is not None:
            bias = self.position_bias(x.shape[1], x.shape[1])  # (H, S, S)
            mask = biased(mask, bias)  # (B, H, S, S)
        for layer in self.layers:
            x = layer(x, mask)
        memory: Tensor = self.norm(x)
        return memory

    @property
    def tokens(self) -> nn.Embedding | None:
        """The embedding table; None where sources are audio."""
        return self.embedding.tokens if isinstance(self.embedding, Embedding) else None

    def _embed(self, source: Tensor) -> Tensor:
        if isinstance(self.embedding, Hearing):
            rows: Tensor = self.embedding(source)
        else:
            positions = torch.arange(source.shape[1], device=source.device)  # (S,)
            rows = self.embedding(source, positions)
        return rows


def padding_mask(lengths: Tensor, width: int) -> Tensor:
    """True at the tokens, False at the padding: (B,) -> (B, 1, 1, width)."""
    inside = torch.arange(width, device=lengths.device) < lengths[:, None]  # (B, width)
    return inside[:, None, None, :]
