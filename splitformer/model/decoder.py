"""The decoder: one stack, run two ways.

`forward` is the parallel pass over a whole known target, used in training and scoring. `step` is
the loop: it takes the new tokens of many sequences, each at its own position with its own caches,
and computes only their rows. Both give the same numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from splitformer.model.attention import MultiHeadAttention, causal_mask
from splitformer.model.cache import CrossCache, DecoderState, SelfCache
from splitformer.model.config import TransformerConfig
from splitformer.model.encoder import padding_mask
from splitformer.model.layers import Embedding, FeedForward, Residual, final_norm, initialise
from splitformer.model.relative import RelativeBias, biased
from splitformer.model.tensors import Tensors


@dataclass(frozen=True, slots=True)
class NewRows:
    """What one sequence adds in a step.

    Attributes:
        state: The sequence.
        count: Its new positions (n).
        outputs: How many of the last of them are wanted.
        mask: Where they may look among its own positions, as in `attention`.
    """

    state: DecoderState
    count: int
    outputs: int
    mask: Tensor | None


class DecoderLayer(nn.Module):
    """Masked self-attention, cross-attention to the memory, feed-forward; each residual."""

    def __init__(self, config: TransformerConfig, dropout: float) -> None:
        super().__init__()
        stack = config.decoder
        self.self_attention = MultiHeadAttention(config, stack)
        self.self_attention_residual = Residual(config, dropout)
        self.cross_attention = MultiHeadAttention(config, stack)
        self.cross_attention_residual = Residual(config, dropout)
        self.feed_forward = FeedForward(config, stack)
        self.feed_forward_residual = Residual(config, dropout)

    def forward(self, x: Tensor, memory: Tensor, causal: Tensor, inside: Tensor) -> Tensor:
        """Whole targets at once: (B, T, D) -> (B, T, D)."""
        x = self.self_attention_residual(x, lambda y: self.self_attention(y, y, causal))
        x = self.cross_attention_residual(x, lambda y: self.cross_attention(y, memory, inside))
        output: Tensor = self.feed_forward_residual(x, self.feed_forward)
        return output

    def step(
        self, x: Tensor, new: list[NewRows], i: int, weights: list[Tensor] | None = None
    ) -> Tensor:
        """New rows of many sequences, packed: (sum of counts, D) -> the same; `i` is our layer.

        `weights` gets those over the memory, (S,), the mean of the heads, of every wanted row.
        """
        x = self.self_attention_residual(x, lambda y: self._attend_own(y, new, i))
        x = self.cross_attention_residual(x, lambda y: self._attend_memory(y, new, i, weights))
        output: Tensor = self.feed_forward_residual(x, self.feed_forward)
        return output

    def _attend_own(self, x: Tensor, new: list[NewRows], i: int) -> Tensor:
        counts, attention = [rows.count for rows in new], self.self_attention
        queries = attention.project_query(x).split(counts, dim=1)  # each (H, n, K)
        keys, values = attention.project_key_value(x)  # (H, N, K)
        pairs = zip(keys.split(counts, dim=1), values.split(counts, dim=1), strict=True)
        mixed = []
        for rows, q, (k, v) in zip(new, queries, pairs, strict=True):
            all_keys, all_values = rows.state.own.append(i, k, v)  # (H, T, K)
            mixed.append(attention.attend(q, all_keys, all_values, rows.mask))
        return attention.merge(torch.cat(mixed, dim=1))

    def _attend_memory(
        self, x: Tensor, new: list[NewRows], i: int, weights: list[Tensor] | None
    ) -> Tensor:
        counts, attention = [rows.count for rows in new], self.cross_attention
        queries = attention.project_query(x).split(counts, dim=1)  # each (H, n, K)
        mixed = []
        for rows, q in zip(new, queries, strict=True):
            keys, values = rows.state.cross.layer(i)  # (H, S, K) each
            mixed.append(attention.attend(q, keys, values))
            if weights is not None:
                heads = attention.weights(q[:, -rows.outputs :], keys)  # (H, n, S)
                weights.extend(heads.mean(0))  # n of (S,)
        return attention.merge(torch.cat(mixed, dim=1))


class Decoder(nn.Module):
    """A stack of decoder layers over embedded tokens (Vaswani et al. 2017, section 3.1).

    Args:
        config: The architecture.
        tokens: The encoder's embedding table where the two share one; None makes an own one.
        dropout: Applied to embeddings and sublayer outputs while training.
    """

    def __init__(
        self, config: TransformerConfig, tokens: nn.Embedding | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.config = config
        width, size = config.d_model, config.target_vocabulary_size
        if tokens is None:
            tokens = nn.Embedding(size, width)
        self.embedding = Embedding(config, tokens, dropout)
        self.layers = nn.ModuleList(
            DecoderLayer(config, dropout) for _ in range(config.decoder_layers)
        )
        self.norm = final_norm(config)
        self.output = nn.Linear(width, size, bias=config.output_bias)
        if config.tie_output:
            self.output.weight = tokens.weight
        relative, heads = config.positions == "relative", config.decoder.heads
        self.position_bias = RelativeBias(config, heads, False) if relative else None
        initialise(self)

    def forward(self, target: Tensor, memory: Tensor, lengths: Tensor) -> Tensor:
        """Run whole known targets at once (teacher forcing).

        Args:
            target: Decoder inputs, already shifted right, (B, T), int64. Padding belongs at the
                end, where causality keeps it from mattering.
            memory: (B, S, D).
            lengths: Rows of each memory that hold meaning, (B,), int64.

        Returns:
            (B, T, D), normalised, ready for `unembed`.
        """
        positions = torch.arange(target.shape[1], device=target.device)  # (T,)
        x = self.embedding(target, positions)  # (B, T, D)
        causal = self._own_mask(target.shape[1], target.shape[1])
        inside = padding_mask(lengths, memory.shape[1])
        for layer in self.layers:
            x = layer(x, memory, causal, inside)
        hidden: Tensor = self.norm(x)
        return hidden

    def begin(self, memory: Tensor) -> DecoderState:
        """Project a memory (S, D) into every layer's cross keys and values, once."""
        data = torch.stack([torch.stack(pair) for pair in self.project(memory)])  # (L, 2, H, S, K)
        return DecoderState(CrossCache(data, Tensors(data)), self.empty_cache())

    def project(self, memory: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of a memory (S, D) in each layer, (H, S, K)."""
        return [layer.cross_attention.project_key_value(memory) for layer in self._blocks()]

    def empty_cache(self) -> SelfCache:
        """A cache with no positions, on our device and in our precision."""
        stack = self.config.decoder
        room = Tensors(self.embedding.tokens.weight)
        return SelfCache(stack.layers, stack.heads, stack.head_size, room)

    def step(
        self,
        tokens: Sequence[Sequence[int]],
        states: Sequence[DecoderState],
        outputs: Sequence[int] | None = None,
        attention: list[Tensor] | None = None,
    ) -> Tensor:
        """Compute the rows of new tokens, each sequence at its own position.

        Args:
            tokens: For each sequence its new input tokens, at least one; several make a prefix
                pass.
            states: The sequences' states; each grows by as many positions.
            outputs: How many of its last new rows of each sequence are wanted; None: one each.
            attention: Gets the last layer's weights over the memory, the mean of its heads, (S,),
                of every wanted row.

        Returns:
            Logits after the wanted rows, sequence by sequence, (sum of outputs, V).
        """
        counts = [len(new) for new in tokens]
        device = self.embedding.tokens.weight.device
        flat = [token for new in tokens for token in new]
        at = [s.length + j for s, count in zip(states, counts, strict=True) for j in range(count)]
        ids, positions = torch.tensor([flat, at], device=device)  # (N,) each
        x = self.embedding(ids, positions)  # (N, D)
        outputs = outputs or [1] * len(states)
        new = [
            NewRows(s, n, many, self._mask_of(n, s.length + n))
            for s, n, many in zip(states, counts, outputs, strict=True)
        ]
        for i, layer in enumerate(self._blocks()):
            last = i + 1 == self.config.decoder_layers
            x = layer.step(x, new, i, attention if last else None)
        for state, count in zip(states, counts, strict=True):
            state.own.commit(count)
        ends = list(itertools.accumulate(counts))
        wanted = [
            row for end, many in zip(ends, outputs, strict=True) for row in range(end - many, end)
        ]
        return self.unembed(self.norm(x[torch.tensor(wanted, device=device)]))

    def _mask_of(self, new: int, positions: int) -> Tensor | None:
        """What a step's rows need; None where a single row may look at all there is."""
        return self._own_mask(new, positions) if new > 1 or self.position_bias else None

    def _own_mask(self, queries: int, keys: int) -> Tensor:
        """Of the last `queries` of `keys` positions: (T, S); with relative positions (H, T, S)."""
        causal = causal_mask(queries, keys, self.embedding.tokens.weight.device)
        if self.position_bias is None:
            return causal
        return biased(causal, self.position_bias(queries, keys))

    def _blocks(self) -> list[DecoderLayer]:
        return cast(list[DecoderLayer], list(self.layers))

    def unembed(self, hidden: Tensor) -> Tensor:
        """(..., D) -> logits (..., V)."""
        logits: Tensor = self.output(hidden * self.config.output_scale)
        return logits
