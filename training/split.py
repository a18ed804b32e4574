"""Leak-free split into training, validation and test parts, fixed by the recipe.

Two English strings with the same *key* (case, digits, punctuation and spaces folded) always land
in the same part, whatever language or source they come from. Held out are whole documents (pages
of LibreOffice help, one Wesnoth campaign) and a random share of all other keys.
A string of a held-out document that also stands elsewhere is common property (``Cancel``): it
stays in training and is left out of the held-out parts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from training.mine import Pair
from training.recipe import HELD_OUT_PACKAGES

_PLACEHOLDER = re.compile(r"<[^<>]*>|%[-+ #0-9.*$]*[a-zA-Z]|\{[^{}]*\}|\$\{?[\w.|]+\}?")
_NOT_LETTERS = re.compile(r"[\W\d_]+")


class Part(StrEnum):
    """The part of the corpus that a pair belongs to."""

    TRAINING = "training"
    VALIDATION = "validation"
    TEST = "test"


HELD_OUT = (Part.VALIDATION, Part.TEST)


@dataclass(frozen=True, slots=True)
class SplitSettings:
    """Shares held out, in thousandths; half of each is validation, half is test.

    Attributes:
        pages: LibreOffice help pages held out whole.
        keys: folded English strings held out wherever they stand.
        salt: changes the split.
    """

    pages: int = 30
    keys: int = 14
    salt: str = "splitformer-1"


def fold(english: str) -> str:
    """Returns the key of an English string: letters only, lower case, placeholders dropped."""
    bare = _PLACEHOLDER.sub(" ", english)
    key = _NOT_LETTERS.sub(" ", bare.casefold()).strip()
    return key or _NOT_LETTERS.sub(" ", english.casefold()).strip()


def bucket(text: str, salt: str) -> int:
    """Maps a text to 0..999, uniformly and for ever."""
    digest = hashlib.sha256(f"{salt}\0{text}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 1000


class Splitter:
    """Decides the part of every pair; built from one pass over the whole corpus."""

    def __init__(self, pairs: Iterable[Pair], settings: SplitSettings | None = None) -> None:
        """Notes which keys stand outside the held-out documents."""
        self._settings = settings or SplitSettings()
        self._common = {fold(pair.english) for pair in pairs if not self.held_out(pair)}

    def part(self, pair: Pair) -> Part | None:
        """Returns the pair's part, or None for a held-out document's common strings."""
        key = fold(pair.english)
        if self.held_out(pair):
            return self._half(key) if key not in self._common else None
        drawn = bucket(key, f"{self._settings.salt}/key") < self._settings.keys
        return self._half(key) if drawn else Part.TRAINING

    def held_out(self, pair: Pair) -> bool:
        """Says whether the pair stands in a document that is held out whole."""
        if pair.document in HELD_OUT_PACKAGES:
            return True
        place = bucket(pair.document, f"{self._settings.salt}/page")
        return pair.source == "libreoffice-help" and place < self._settings.pages

    def _half(self, key: str) -> Part:
        place = bucket(key, f"{self._settings.salt}/half")
        return Part.VALIDATION if place < 500 else Part.TEST
