"""The decoder's memory of one sequence: keys and values, as objects with a size.

`CrossCache` is the encoder's memory seen through each layer's two linear maps: computed once, never
changed, shared by every fork. `SelfCache` holds what the sequence itself has said so far and grows.
"""

from __future__ import annotations

from torch import Tensor

_FIRST_CAPACITY = 32
"""Positions a new `SelfCache` has room for; it doubles when full."""


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
    def bytes_for(positions: int, layers: int, d_model: int, element_size: int) -> int:
        """Bytes of keys and values for a memory of `positions` rows."""
        return layers * 2 * positions * d_model * element_size


class SelfCache:
    """Self-attention keys and values of the positions computed so far, all layers.

    Appending copies nothing but the new rows, except when the room doubles; no other sequence is
    ever touched.

    Attributes:
        address: Where the data is, (L, 2, H, capacity, K), contiguous: index 0 of the second axis
            holds keys, 1 values.
        capacity: Positions there is room for.
        length: Positions held.
    """

    __slots__ = ("_data", "address", "capacity", "length")

    def __init__(self, layers: int, heads: int, head_size: int, like: Tensor) -> None:
        self._hold(like.new_empty(layers, 2, heads, _FIRST_CAPACITY, head_size))
        self.length = 0

    @property
    def keys(self) -> Tensor:
        """(L, H, length, K)."""
        return self._data[:, 0, :, : self.length]

    @property
    def values(self) -> Tensor:
        """(L, H, length, K)."""
        return self._data[:, 1, :, : self.length]

    @property
    def size_bytes(self) -> int:
        """Bytes allocated, including room not yet used."""
        return self._data.nbytes

    @staticmethod
    def bytes_for(positions: int, layers: int, d_model: int, element_size: int) -> int:
        """Bytes a cache occupies once it holds `positions` positions."""
        capacity = _FIRST_CAPACITY
        while capacity < positions:
            capacity *= 2
        return layers * 2 * capacity * d_model * element_size

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write new rows of one layer behind the `length` committed ones.

        Args:
            layer: Which layer the rows belong to.
            keys: (H, n, K).
            values: (H, n, K).

        Returns:
            All keys and values of the layer including the new rows, (H, length + n, K) each, as
            views.
        """
        end = self.length + keys.shape[1]
        self.reserve(end)
        self._data[layer, 0, :, self.length : end] = keys
        self._data[layer, 1, :, self.length : end] = values
        return self._data[layer, 0, :, :end], self._data[layer, 1, :, :end]

    def commit(self, count: int) -> None:
        """Count `count` more positions as held, once every layer has appended them."""
        self.length += count

    def truncate(self, length: int) -> None:
        """Forget the positions from `length` on."""
        assert 0 <= length <= self.length
        self.length = length

    def afresh(self) -> SelfCache:
        """Return an empty cache of the same shape."""
        layers, _, heads, _, head_size = self._data.shape
        return SelfCache(layers, heads, head_size, self._data)

    def fork(self) -> SelfCache:
        """Return an independent copy."""
        twin = object.__new__(SelfCache)
        twin._hold(self._data.clone())
        twin.length = self.length
        return twin

    def reserve(self, positions: int) -> None:
        """Make room for `positions` positions in all; what is held stays."""
        capacity = self.capacity
        if positions <= capacity:
            return
        while capacity < positions:
            capacity *= 2
        layers, two, heads, _, width = self._data.shape
        grown = self._data.new_empty(layers, two, heads, capacity, width)
        grown[:, :, :, : self.length] = self._data[:, :, :, : self.length]
        self._hold(grown)

    def _hold(self, data: Tensor) -> None:
        self._data = data
        self.address = data.data_ptr()
        self.capacity = data.shape[3]
