"""What a sequence holds so far, as far as filters look at it: followed token by token."""

from __future__ import annotations

from collections.abc import Iterable

_NONE: frozenset[int] = frozenset()


class Seen:
    """The tokens of one decoder input, and how each of its n-grams went on.

    Args:
        size: Of the n-grams that may occur once only; 0: any may.
        tokens: What the input begins with.

    Attributes:
        ids: Every token that it holds.
    """

    __slots__ = ("_after", "_last", "_size", "ids")

    def __init__(self, size: int, tokens: Iterable[int] = ()) -> None:
        self.ids: set[int] = set()
        self._size = size
        self._last: tuple[int, ...] = ()  # the n - 1 tokens that the next one completes, or fewer
        self._after: dict[tuple[int, ...], frozenset[int]] = {}
        for token in tokens:
            self.add(token)

    @property
    def completing(self) -> frozenset[int]:
        """The tokens that would complete an n-gram that was seen already."""
        return self._after.get(self._last, _NONE)

    def add(self, token: int) -> None:
        """Go on by one token."""
        self.ids.add(token)
        last, before = self._last, self._size - 1
        if len(last) == before:
            self._after[last] = self._after.get(last, _NONE) | {token}
            last = last[1:]
        if before > 0:
            self._last = (*last, token)

    def fork(self) -> Seen:
        """Return a copy that goes its own way."""
        twin = Seen(self._size)
        twin.ids, twin._last, twin._after = self.ids.copy(), self._last, self._after.copy()
        return twin
