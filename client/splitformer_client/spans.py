"""Parts of texts, in characters and bytes."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from splitformer.v1 import tensor_pb2


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A part of a text.

    Attributes:
        begin: Its first character; `text[begin:end]` is the part.
        end: One past its last character.
        byte_begin: Its first byte in UTF-8.
        byte_end: One past its last byte.
    """

    begin: int
    end: int
    byte_begin: int
    byte_end: int

    @property
    def of_something(self) -> bool:
        """True if it is not empty."""
        return self.begin < self.end

    def of(self, text: str) -> str:
        """Return the part of its text."""
        return text[self.begin : self.end]

    def behind(self, other: Span) -> Span:
        """Return where the part lies if its text begins where another part does."""
        return Span(
            other.begin + self.begin,
            other.begin + self.end,
            other.byte_begin + self.byte_begin,
            other.byte_begin + self.byte_end,
        )


class Places:
    """Knows where the characters of a text lie in bytes."""

    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def _bytes(self) -> Sequence[int]:
        """First byte of each character, and where the text ends."""
        if self._text.isascii():
            return range(len(self._text) + 1)
        return [*accumulate((len(each.encode()) for each in self._text), initial=0)]

    def span(self, begin: int, end: int) -> Span:
        """Return the part from one character to another."""
        return Span(begin, end, self._bytes[begin], self._bytes[end])

    def span_of_bytes(self, begin: int, end: int) -> Span:
        """Return the least part of whole characters that holds some bytes."""
        first = bisect.bisect_right(self._bytes, begin) - 1
        return self.span(first, max(first, bisect.bisect_left(self._bytes, end)))


class Rows:
    """Knows which parts of the source the rows of a memory stand for.

    Args:
        header: The memory's.
    """

    def __init__(self, header: tensor_pb2.MemoryHeader) -> None:
        self._header = header

    def spans(self, rows: Iterable[int]) -> tuple[Span, ...]:
        """Return the parts that some rows stand for; some have none, none of an unknown text."""
        known = self._spans
        return tuple(known[row] for row in rows if row < len(known) and known[row].of_something)

    @cached_property
    def _spans(self) -> list[Span]:
        header = self._header
        if not header.source_text:
            return []
        places = Places(header.source_text)
        return [places.span_of_bytes(each.begin, each.end) for each in header.source_tokens]
