"""The decoder's memory of one sequence: keys and values, as objects with a size.

`CrossCache` is the encoder's memory seen through each layer's two linear maps: computed once, never
changed, shared by every fork. `SelfCache` holds what the sequence itself has said so far and grows.
Neither cares what its blocks of numbers are: numpy's arrays, or torch's tensors.
"""

from __future__ import annotations

import math
from array import array

from splitformer.model.rooms import Block, Room
from splitformer.native import PAGE_POSITIONS


class CrossCache:
    """Cross-attention keys and values of one memory.

    Args:
        data: (L, 2, H, S, K), contiguous: index 0 of the second axis holds keys, 1 values.
        room: Where it comes from.

    Attributes:
        address: Where the data is.
        length: Rows of the memory (S).
    """

    __slots__ = ("_data", "address", "length")

    def __init__(self, data: Block, room: Room) -> None:
        self._data = data
        self.address = room.address(data)
        self.length = data.shape[3]

    def layer(self, i: int) -> tuple[Block, Block]:
        """Keys and values of a layer, (H, S, K) each."""
        return self._data[i, 0], self._data[i, 1]

    @property
    def keys(self) -> Block:
        """(L, H, S, K)."""
        return self._data[:, 0]

    @property
    def values(self) -> Block:
        """(L, H, S, K)."""
        return self._data[:, 1]

    @property
    def size_bytes(self) -> int:
        """Bytes held by all layers."""
        return int(self._data.nbytes)

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
        room: Where the pages come from.

    Attributes:
        addresses: Where the pages are, each (L, 2, H, PAGE_POSITIONS, K), contiguous: index 0 of
            the second axis holds keys, 1 values.
        capacity: Positions there is room for.
        length: Positions held.
        shared: Positions at the beginning that forks may be reading: whole pages.
        sequence: What the native library is told of a sequence that has one new position, as
            `Sequence` in native/src/plan.h: where `addresses` are, capacity, positions held,
            1, address and length of its memory, 1. Who takes a step fills in what it holds.
    """

    __slots__ = (
        *("_pages", "_room", "_shape"),
        *("addresses", "capacity", "length", "sequence", "shared"),
    )

    def __init__(self, layers: int, heads: int, head_size: int, room: Room) -> None:
        self._shape = (layers, 2, heads, PAGE_POSITIONS, head_size)
        self._room = room
        self._pages: list[Block] = []
        self.addresses = array("q")
        self.capacity = self.length = self.shared = 0
        self.sequence = array("q", (0, 0, 0, 1, 0, 0, 1))

    @property
    def keys(self) -> Block:
        """A copy of all keys, (L, H, length, K)."""
        return self._gathered(0)

    @property
    def values(self) -> Block:
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

    def append(self, layer: int, keys: Block, values: Block) -> tuple[Block, Block]:
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

    def layer(self, i: int) -> tuple[Block, Block]:
        """Copies of a layer's keys and values, (H, length, K) each."""
        return self._up_to(self.length, i)

    def bytes_up_to(self, positions: int) -> int:
        """Bytes that this cache occupies once it holds `positions` positions."""
        page = math.prod(self._shape) * self._room.element_bytes
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
        self.shared = min(self.shared, len(self._pages) * PAGE_POSITIONS)
        self._resize()

    def afresh(self) -> SelfCache:
        """Return an empty cache of the same shape."""
        layers, _, heads, _, head_size = self._shape
        return SelfCache(layers, heads, head_size, self._room)

    def fork(self) -> SelfCache:
        """Return a cache that goes its own way; only the page that is not full is copied."""
        twin = self.afresh()
        twin.length = self.length
        full = self.length // PAGE_POSITIONS
        twin.shared = full * PAGE_POSITIONS
        self.shared = max(self.shared, twin.shared)
        for page in self._pages[:full]:
            twin._add(page)
        twin._copy(self, twin.shared)
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
        if positions <= self.capacity and self.length >= self.shared:
            return  # most often
        for i in range(self.length // PAGE_POSITIONS, self.shared // PAGE_POSITIONS):
            shared, self._pages[i] = self._pages[i], self._room.page(self._shape)
            self._pages[i][:] = shared
            self.addresses[i] = self._room.address(self._pages[i])
        self.shared = min(self.shared, self.length // PAGE_POSITIONS * PAGE_POSITIONS)
        while self.capacity < positions:
            self._add(self._room.page(self._shape))

    def _copy(self, other: SelfCache, begin: int) -> None:
        """Copy the positions of another cache from `begin` on, behind our own."""
        self.reserve(other.length)
        for i in range(begin // PAGE_POSITIONS, -(-other.length // PAGE_POSITIONS)):
            first = i * PAGE_POSITIONS
            rows = slice(max(begin - first, 0), min(other.length - first, PAGE_POSITIONS))
            self._pages[i][:, :, :, rows] = other._pages[i][:, :, :, rows]

    def _add(self, page: Block) -> None:
        self._pages.append(page)
        self.addresses.append(self._room.address(page))
        self._resize()

    def _resize(self) -> None:
        """Note how many pages there are, and where their addresses are now."""
        self.capacity = len(self._pages) * PAGE_POSITIONS
        self.sequence[0], self.sequence[1] = self.addresses.buffer_info()[0], self.capacity

    def _up_to(self, end: int, layer: int) -> tuple[Block, Block]:
        pages = [page[layer] for page in self._pages]  # each (2, H, PAGE_POSITIONS, K)
        both = self._room.joined(pages, 2)[:, :, :end]  # (2, H, end, K)
        return both[0], both[1]

    def _gathered(self, which: int) -> Block:
        pages = [page[:, which] for page in self._pages]  # each (L, H, PAGE_POSITIONS, K)
        layers, _, heads, _, head_size = self._shape
        empty = self._room.block((layers, heads, 0, head_size))
        return self._room.joined([empty, *pages], 2)[:, :, : self.length]


class DecoderState:
    """Everything the decoder remembers of one sequence.

    Attributes:
        cross: Keys and values of the memory; shared between forks.
        own: Keys and values of the sequence's own positions.
    """

    __slots__ = ("cross", "own")

    def __init__(self, cross: CrossCache, own: SelfCache) -> None:
        self.cross = cross
        self.own = own
        own.sequence[4], own.sequence[5] = cross.address, cross.length

    @property
    def length(self) -> int:
        """Positions computed so far."""
        return self.own.length

    @property
    def size_bytes(self) -> int:
        """Bytes of both caches; a fork's share of `cross` counts in full."""
        return self.cross.size_bytes + self.own.size_bytes

    def truncate(self, length: int) -> None:
        """Forget the positions from `length` on."""
        self.own.truncate(length)

    def afresh(self) -> DecoderState:
        """Return a state over the same memory with nothing said yet."""
        return DecoderState(self.cross, self.own.afresh())

    def fork(self) -> DecoderState:
        """Return a state that goes its own way from here, over the same memory."""
        return DecoderState(self.cross, self.own.fork())

    def adopt(self, other: DecoderState, same: int) -> None:
        """Become a copy of a state over the same memory that has `same` positions in common."""
        assert self.cross is other.cross
        self.own.adopt(other.own, same)
