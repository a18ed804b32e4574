"""Where a word begins and ends: for glossaries, which look for whole words, and for alignments.

Two letters beside each other belong to one word, unless one of them is of a script that puts no
spaces between words (Chinese, Japanese, Thai and others), or of Hangul, where particles follow a
word without one. Letters, their marks and digits count, and the underscore.
"""

from __future__ import annotations

import bisect
import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

_UNSPACED = (
    (0x0E00, 0x109F),  # Thai, Lao, Tibetan, Myanmar
    (0x1100, 0x11FF),  # Hangul
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x2E80, 0xA4CF),  # Chinese, Japanese, Yi
    (0xA960, 0xA97F),  # Hangul
    (0xAA60, 0xAADF),  # Myanmar, Tai Viet
    (0xAC00, 0xD7FF),  # Hangul
    (0xF900, 0xFAFF),  # Chinese
    (0xFF66, 0xFFDC),  # Japanese and Hangul of half width
    (0x20000, 0x3FFFF),  # Chinese
)
_BEGINNINGS = [first for first, _ in _UNSPACED]


@lru_cache(4096)
def joins(character: str) -> bool:
    """True if another such character beside it belongs to the same word."""
    if unicodedata.category(character)[0] not in "LMN" and character != "_":
        return False
    place = bisect.bisect_right(_BEGINNINGS, ord(character)) - 1
    return place < 0 or ord(character) > _UNSPACED[place][1]


def inside(text: str, place: int) -> bool:
    """True if what is before and what is behind a place in a text are of one word."""
    return 0 < place < len(text) and joins(text[place - 1]) and joins(text[place])


def around(text: str, begin: int, end: int) -> tuple[int, int]:
    """Return where the words begin and end that a part of a text belongs to."""
    while inside(text, begin):
        begin -= 1
    while inside(text, end):
        end += 1
    return begin, end


def occurrences(term: str, text: str, any_case: bool = False) -> Iterator[tuple[int, int]]:
    """Give the places where a term stands in a text as whole words.

    Args:
        term: Words, not blank; any white space may be between them.
        text: Where to look.
        any_case: Capital letters do not matter.
    """
    pattern = r"\s+".join(map(re.escape, term.split()))
    for match in re.finditer(pattern, text, re.IGNORECASE if any_case else 0):
        begin, end = match.span()
        if not (inside(text, begin) or inside(text, end)):
            yield begin, end
