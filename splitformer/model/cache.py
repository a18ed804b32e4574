"""The decoder's memory of one sequence: keys and values, as objects with a size.

`CrossCache` is the encoder's memory seen through each layer's two linear maps: computed once, never
changed, shared by every fork. `SelfCache` holds what the sequence itself has said so far and grows.
"""

from __future__ import annotations

import math
from array import array
from typing import Any, Protocol

import torch
from torch import Tensor

from splitformer.native import PAGE_POSITIONS


class Pool(Protocol):
    """Where pages come from."""

    def page(self) -> Tensor:
        """Hand out a page; it goes back once nobody holds it any more."""


class CrossCache:
    """Cross-attention keys and values of one memory.

    Args:
        data: (L, 2, H, S, K), contiguous: index 0 of the second axis holds keys, 1 values.

    Attributes:
        address: Where the data is.
        length: Rows of the memory (S).
    """

    __slots__ = ("_data", "address", "length")

    def __init__(self, data: Tensor) -> None:
        assert data.is_contiguous()
        self._data = data
        self.address = data.data_ptr()
        self.length = data.shape[3]

    def layer(self, i: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer, (H, S, K) each."""
        return self._data[i, 0], self._data[i, 1]

    @property
    def keys(self) -> Tensor:
        """(L, H, S, K)."""
        return self._data[:, 0]

    @property
    def values(self) -> Tensor:
        """(L, H, S, K)."""
        return self._data[:, 1]

    @property
    def size_bytes(self) -> int:
        """Bytes held by all layers."""
        return self._data.nbytes

    @staticmethod
    def bytes_for(positions: int, layers: int, width: int, element_size: int) -> int:
        """Bytes of keys and values for a memory of `positions` rows."""
        return layers * 2 * positions * width * element_size


class SelfCache:
    """Self-attention keys and values of the positions computed so far, all layers, in pages.

    Growing adds a page and copies nothing; no other sequence is ever touched. Forks share the pages
    that are full, by reference: one that is written to again after a rewind is copied first.

    Args:
        layers: L.
        heads: H.
        head_size: K.
        like: Gives the pages their type and device.
        pool: Hands out the pages; None: each is a piece of memory of its own.

    Attributes:
        addresses: Where the pages are, each (L, 2, H, PAGE_POSITIONS, K), contiguous: index 0 of
            the second axis holds keys, 1 values.
        capacity: Positions there is room for.
        length: Positions held.
    """

    __slots__ = ("_like", "_pages", "_pool", "_shape", "_shared", "addresses", "capacity", "length")

    def __init__(
        self, layers: int, heads: int, head_size: int, like: Tensor, pool: Pool | None = None
    ) -> None:
        self._shape = (layers, 2, heads, PAGE_POSITIONS, head_size)
        self._like = like
        self._pool = pool
        self._pages: list[Tensor] = []
        self._shared = 0  # leading pages that a fork may be reading
        self.addresses = array("q")
        self.capacity = self.length = 0

    @property
    def keys(self) -> Tensor:
        """A copy of all keys, (L, H, length, K)."""
        return self._gathered(0)

    @property
    def values(self) -> Tensor:
        """A copy of all values, (L, H, length, K)."""
        return self._gathered(1)

    @property
    def size_bytes(self) -> int:
        """Bytes allocated; pages shared with forks count in full."""
        return sum(page.nbytes for page in self._pages)

    @staticmethod
    def bytes_for(positions: int, layers: int, width: int, element_size: int) -> int:
        """Bytes a cache occupies once it holds `positions` positions."""
        return layers * 2 * -(-positions // PAGE_POSITIONS) * PAGE_POSITIONS * width * element_size

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write new rows of one layer behind the `length` committed ones.

        Args:
            layer: Which layer the rows belong to.
            keys: (H, n, K).
            values: (H, n, K).

        Returns:
            All keys and values of the layer including the new rows, (H, length + n, K) each.
        """
        end = self.length + keys.shape[1]
        self.reserve(end)
        for i in range(self.length // PAGE_POSITIONS, len(self._pages)):
            first = i * PAGE_POSITIONS
            begin, stop = max(first, self.length), min(first + PAGE_POSITIONS, end)
            rows = slice(begin - self.length, stop - self.length)
            page = self._pages[i][layer, :, :, begin - first : stop - first]  # (2, H, rows, K)
            page[0], page[1] = keys[:, rows], values[:, rows]
        return self._up_to(end, layer)

    def layer(self, i: int) -> tuple[Tensor, Tensor]:
        """Copies of a layer's keys and values, (H, length, K) each."""
        return self._up_to(self.length, i)

    def bytes_up_to(self, positions: int) -> int:
        """Bytes that this cache occupies once it holds `positions` positions."""
        page = math.prod(self._shape) * self._like.element_size()
        return -(-positions // PAGE_POSITIONS) * page

    def commit(self, count: int) -> None:
        """Count `count` more positions as held, once every layer has appended them."""
        self.length += count

    def truncate(self, length: int) -> None:
        """Forget the positions from `length` on; pages that hold none of the others go."""
        assert 0 <= length <= self.length
        self.length = length
        del self._pages[-(-length // PAGE_POSITIONS) :]
        del self.addresses[len(self._pages) :]
        self.capacity = len(self._pages) * PAGE_POSITIONS
        self._shared = min(self._shared, len(self._pages))

    def afresh(self) -> SelfCache:
        """Return an empty cache of the same shape."""
        layers, _, heads, _, head_size = self._shape
        return SelfCache(layers, heads, head_size, self._like, self._pool)

    def fork(self) -> SelfCache:
        """Return a cache that goes its own way; only the page that is not full is copied."""
        twin = self.afresh()
        twin.length = self.length
        twin._shared = self.length // PAGE_POSITIONS
        self._shared = max(self._shared, twin._shared)
        for page in self._pages[: twin._shared]:
            twin._add(page)
        twin._copy(self, twin.length - twin.length % PAGE_POSITIONS)
        return twin

    def adopt(self, other: SelfCache, same: int) -> None:
        """Become a copy of another cache, which has the first `same` positions in common with us.

        Only the other positions are copied, so that it costs little to go over from one hypothesis
        to another that was the same until a few tokens ago.
        """
        assert other is not self
        self.truncate(same)
        self._copy(other, same)
        self.length = other.length

    def reserve(self, positions: int) -> None:
        """Make sure that the positions from `length` to `positions` can be written."""
        if positions <= self.capacity and self.length >= self._shared * PAGE_POSITIONS:
            return  # most often
        for i in range(self.length // PAGE_POSITIONS, self._shared):
            self._pages[i] = self._page().copy_(self._pages[i])
            self.addresses[i] = self._pages[i].data_ptr()
        self._shared = min(self._shared, self.length // PAGE_POSITIONS)
        while self.capacity < positions:
            self._add(self._page())

    def _page(self) -> Tensor:
        return self._like.new_empty(self._shape) if self._pool is None else self._pool.page()

    def _copy(self, other: SelfCache, begin: int) -> None:
        """Copy the positions of another cache from `begin` on, behind our own."""
        self.reserve(other.length)
        for i in range(begin // PAGE_POSITIONS, -(-other.length // PAGE_POSITIONS)):
            first = i * PAGE_POSITIONS
            row = max(begin - first, 0)
            many = min(other.length - first, PAGE_POSITIONS) - row
            rows = (..., slice(row, row + many), slice(None))
            _assign(self._pages[i], other._pages[i], rows)

    def _add(self, page: Tensor) -> None:
        self._pages.append(page)
        self.addresses.append(page.data_ptr())
        self.capacity += PAGE_POSITIONS

    def _up_to(self, end: int, layer: int) -> tuple[Tensor, Tensor]:
        both = torch.cat([page[layer] for page in self._pages], dim=2)[:, :, :end]  # (2, H, end, K)
        return both[0], both[1]

    def _gathered(self, which: int) -> Tensor:
        pages = [page[:, which] for page in self._pages]  # each (L, H, PAGE_POSITIONS, K)
        layers, _, heads, _, head_size = self._shape
        empty = self._like.new_empty(layers, heads, 0, head_size)
        return torch.cat([empty, *pages], dim=2)[:, :, : self.length]


def _assign(to: Tensor, source: Tensor, rows: tuple[Any, ...]) -> None:
    """Copy some rows of a page; numpy does it sooner than torch, where it can reach them."""
    if to.device.type == "cpu":
        to.view(torch.uint8).numpy()[rows] = source.view(torch.uint8).numpy()[rows]
        return
    with torch.inference_mode():  # pages that torch's step added can be written in it only
        to[rows].copy_(source[rows])
