"""What a sequence holds so far, as far as filters look at it: followed token by token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from splitformer.generation.options import GenerationOptions

_NONE: frozenset[int] = frozenset()


class Seen:
    """The tokens of one decoder input, and how each of its n-grams went on.

    Args:
        size: Of the n-grams that may occur once only; 0: any may.
        tokens: What the input begins with.
        never: Sequences of two tokens or more that may not occur.

    Attributes:
        ids: Every token that it holds.
    """

    __slots__ = ("_after", "_last", "_never", "_size", "_sizes", "_tail", "ids")

    def __init__(
        self, size: int, tokens: Iterable[int] = (), never: Sequence[Sequence[int]] = ()
    ) -> None:
        self.ids: set[int] = set()
        self._size = size
        self._never: dict[tuple[int, ...], frozenset[int]] = {}  # last tokens by those before them
        for *before, last in never:
            self._never[*before] = self._never.get((*before,), _NONE) | {last}
        self._sizes = sorted({len(before) for before in self._never})
        self._tail: tuple[int, ...] = ()  # as many of the last tokens as the longest has
        self._last: tuple[int, ...] = ()  # the n - 1 tokens that the next one completes, or fewer
        self._after: dict[tuple[int, ...], frozenset[int]] = {}
        for token in tokens:
            self.add(token)

    @property
    def completing(self) -> frozenset[int]:
        """The tokens that would complete an n-gram that was seen already, or what may not occur."""
        repeated = self._after.get(self._last, _NONE)
        for size in self._sizes:
            repeated |= self._never.get(self._tail[-size:], _NONE)
        return repeated

    def add(self, token: int) -> None:
        """Go on by one token."""
        self.ids.add(token)
        if self._sizes:
            self._tail = (*self._tail, token)[-self._sizes[-1] :]
        last, before = self._last, self._size - 1
        if len(last) == before:
            self._after[last] = self._after.get(last, _NONE) | {token}
            last = last[1:]
        if before > 0:
            self._last = (*last, token)

    def fork(self) -> Seen:
        """Return a copy that goes its own way."""
        twin = Seen(self._size)
        twin._never, twin._sizes, twin._tail = self._never, self._sizes, self._tail
        twin.ids, twin._last, twin._after = self.ids.copy(), self._last, self._after.copy()
        return twin


def seen_of(options: GenerationOptions, said: Iterable[int]) -> Seen:
    """Return what a decoder input holds, for the filters that look at it."""
    return Seen(options.unrepeated, said, options.suppressed_sequences)
