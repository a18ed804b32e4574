"""A decode step in which every shape is fixed: what a CUDA graph can record.

Each row is one sequence with one new token. What differs from row to row (position, pages, how much
of them is filled) is in tensors; rows that are not used point at the spare page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from splitformer.model.attention import MultiHeadAttention
from splitformer.model.cache import DecoderState
from splitformer.model.decoder import Decoder, DecoderLayer
from splitformer.model.pool import SPARE, PagedCross, PagePool
from splitformer.native import PAGE_POSITIONS

_FIXED = 3
"""Columns before the pages: token, position, rows of the memory."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The input of a step as one tensor of integers, so that one copy brings it to the device.

    Attributes:
        data: (B, 3 + 2 P), int64: token, position, rows of the memory, pages of the own keys and
            values, pages of the memory's.
    """

    data: Tensor

    @property
    def tokens(self) -> Tensor:
        """(B, 1)."""
        return self.data[:, :1]

    @property
    def positions(self) -> Tensor:
        """(B, 1)."""
        return self.data[:, 1:2]

    @property
    def sources(self) -> Tensor:
        """(B, 1)."""
        return self.data[:, 2:_FIXED]

    @property
    def own(self) -> Tensor:
        """(B, P)."""
        return self.data[:, _FIXED:].chunk(2, dim=1)[0]

    @property
    def cross(self) -> Tensor:
        """(B, P)."""
        return self.data[:, _FIXED:].chunk(2, dim=1)[1]

    @staticmethod
    def empty(rows: int, pages: int) -> Tensor:
        """Input of which no row is used."""
        return torch.tensor([_unused(pages)] * rows, dtype=torch.int64)

    @staticmethod
    def of(
        tokens: Sequence[int], states: Sequence[DecoderState], pool: PagePool, rows: int, pages: int
    ) -> Tensor:
        """Input of a step with one token per state; the states have room for it."""
        lines = []
        for token, state in zip(tokens, states, strict=True):
            assert isinstance(state.cross, PagedCross)
            own, cross = pool.numbers(state.own), pool.numbers(state.cross.pages)
            own += [SPARE] * (pages - len(own))
            cross += [SPARE] * (pages - len(cross))
            lines.append([token, state.length, state.cross.length, *own, *cross])
        lines += [_unused(pages)] * (rows - len(lines))
        return torch.tensor(lines, dtype=torch.int64)


def _unused(pages: int) -> list[int]:
    """A row over one position of the spare page, so that its numbers are finite at least."""
    return [0, 0, 1, *[SPARE] * (2 * pages)]


class PagedStep:
    """`Decoder.step` for single tokens, over pages.

    Args:
        decoder: In evaluation mode.
        pool: Where all keys and values are.
    """

    def __init__(self, decoder: Decoder, pool: PagePool) -> None:
        self._decoder = decoder
        self._pages = pool.data  # (pages, L, 2, H, PAGE_POSITIONS, K)
        bias = decoder.position_bias
        self._bias = None if bias is None else bias.by_distance()  # (H, distances)

    def __call__(self, rows: Rows) -> Tensor:
        """Compute a row per sequence: logits (B, V), float32."""
        decoder = self._decoder
        x = decoder.embedding(rows.tokens, rows.positions)  # (B, 1, D)
        own_mask, cross_mask = self._own_mask(rows), self._cross_mask(rows)
        for i, layer in enumerate(cast(list[DecoderLayer], list(decoder.layers))):
            own, cross = layer.self_attention, layer.cross_attention
            x = layer.self_attention_residual(
                x, lambda y, a=own, i=i: self._attend_own(a, y, rows, i, own_mask)
            )
            x = layer.cross_attention_residual(
                x, lambda y, a=cross, i=i: self._attend(a, y, rows.cross, i, cross_mask)
            )
            x = layer.feed_forward_residual(x, layer.feed_forward)
        logits: Tensor = decoder.unembed(decoder.norm(x[:, 0])).float()
        return logits

    def _attend_own(
        self, attention: MultiHeadAttention, x: Tensor, rows: Rows, i: int, mask: Tensor
    ) -> Tensor:
        keys, values = attention.project_key_value(x)  # (B, H, 1, K)
        at = rows.positions  # (B, 1)
        page = rows.own.gather(1, at // PAGE_POSITIONS)[:, 0]  # (B,)
        place = (at % PAGE_POSITIONS)[:, 0]  # (B,)
        for which, new in enumerate((keys, values)):
            self._pages[:, i, which][page, :, place] = new[:, :, 0]  # (B, H, K)
        return self._attend(attention, x, rows.own, i, mask)

    def _attend(
        self, attention: MultiHeadAttention, x: Tensor, table: Tensor, i: int, mask: Tensor
    ) -> Tensor:
        keys, values = (self._gathered(table, i, which) for which in (0, 1))  # (B, H, T, K)
        return attention.merge(attention.attend(attention.project_query(x), keys, values, mask))

    def _gathered(self, table: Tensor, i: int, which: int) -> Tensor:
        """What is in the pages of each row: (B, P) -> (B, H, P * PAGE_POSITIONS, K)."""
        pages = self._pages[:, i, which].index_select(0, table.flatten())  # (B * P, H, page, K)
        rows: Tensor = pages.unflatten(0, table.shape)  # (B, P, H, page, K)
        return rows.transpose(1, 2).flatten(2, 3)

    def _own_mask(self, rows: Rows) -> Tensor:
        """Up to each row's position: boolean (B, 1, 1, T), with relative positions (B, H, 1, T)."""
        keys = self._positions_of(rows.own)
        inside = (keys <= rows.positions)[:, None, None]  # (B, 1, 1, T)
        if self._bias is None:
            return inside
        last = self._bias.shape[1] - 1
        distance = (rows.positions - keys).clamp(0, last)  # (B, T)
        bias = self._bias[:, distance].transpose(0, 1)  # (H, B, T) -> (B, H, T)
        return bias[:, :, None].masked_fill(~inside, float("-inf"))

    def _cross_mask(self, rows: Rows) -> Tensor:
        return (self._positions_of(rows.cross) < rows.sources)[:, None, None]  # (B, 1, 1, T)

    def _positions_of(self, table: Tensor) -> Tensor:
        """(T,)."""
        return torch.arange(table.shape[1] * PAGE_POSITIONS, device=table.device)
