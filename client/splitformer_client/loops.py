"""Translations that say the same over and over, as small models do where they are lost."""

from __future__ import annotations

import re

_LOOP = re.compile(r"((?=.{0,39}[^\W\d_]).{2,40}?)\1{3,}|([^\W\d_])\2{7,}")


def loops(source: str, text: str) -> bool:
    """True if a text repeats something in a row, and its source does not.

    Two characters or more four times, or a single one eight times; a letter is among them.
    """
    return bool(_LOOP.search(text)) and not _LOOP.search(source)
