"""Pages of keys and values in one block of memory: one gather reads those of many sequences.

On a GPU a step is recorded once and replayed: it finds keys and values by the numbers of their
pages, which are data, instead of by addresses, which would be part of the recording (Kwon et al.
2023, PagedAttention).
"""

from __future__ import annotations

import math
import weakref

from torch import Tensor

from splitformer.errors import ResourceExhaustedError
from splitformer.model.cache import CrossCache, SelfCache
from splitformer.model.tensors import Tensors
from splitformer.native import PAGE_POSITIONS

SPARE = 0
"""The page that belongs to nobody: what a step's unused rows read and write."""


class PagePool(Tensors):
    """A fixed number of pages, each (L, 2, H, PAGE_POSITIONS, K), as a `Room`; see there.

    Args:
        layers: L.
        heads: H.
        head_size: K.
        like: Gives the pages their type and device.
        count: Pages to hand out.

    Attributes:
        data: All of them, (count + 1, L, 2, H, PAGE_POSITIONS, K); the first is `SPARE`.
    """

    def __init__(self, layers: int, heads: int, head_size: int, like: Tensor, count: int) -> None:
        super().__init__(like)
        self._cache = (layers, heads, head_size)
        self._shape = shape = (layers, 2, heads, PAGE_POSITIONS, head_size)
        self.data = like.new_zeros((count + 1, *shape))
        self._page_bytes = math.prod(shape) * like.element_size()
        self._free = list(range(count, SPARE, -1))

    @property
    def free(self) -> int:
        """Pages that could be handed out."""
        return len(self._free)

    def page(self, shape: tuple[int, ...]) -> Tensor:
        """Hand out a page of zeros; it comes back by itself once nobody holds it any more.

        Raises:
            ResourceExhaustedError: OVER_BUDGET.
        """
        assert shape == self._shape
        if not self._free:
            raise ResourceExhaustedError(
                f"keys and values: all {len(self.data) - 1} pages are in use", retry_after=1.0
            )
        number = self._free.pop()
        page = self.data[number]
        weakref.finalize(page, self._free.append, number).atexit = False
        return page.zero_()  # what a former holder has left must not be seen, not even a NaN

    def cache(self) -> SelfCache:
        """Return an empty cache that takes its pages here."""
        return SelfCache(*self._cache, room=self)

    def numbers(self, cache: SelfCache) -> list[int]:
        """Return the numbers of a cache's pages."""
        base, size = self.data.data_ptr(), self._page_bytes
        return [(address - base) // size for address in cache.addresses]


class PagedCross(CrossCache):
    """Keys and values of one memory, in pages of a pool.

    Args:
        pool: Where to take the pages.
        pairs: Keys and values of each layer, (H, S, K).
    """

    __slots__ = ("pages",)

    def __init__(self, pool: PagePool, pairs: list[tuple[Tensor, Tensor]]) -> None:
        self.pages = pool.cache()
        self.length = pairs[0][0].shape[1]
        self.address = 0
        for i, (keys, values) in enumerate(pairs):
            self.pages.append(i, keys, values)
        self.pages.commit(self.length)

    def layer(self, i: int) -> tuple[Tensor, Tensor]:
        """Copies of keys and values of a layer, (H, S, K) each."""
        return self.pages.layer(i)

    @property
    def size_bytes(self) -> int:
        """Bytes of the pages."""
        return self.pages.size_bytes
