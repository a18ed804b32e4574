"""Text to token ids with byte spans, and token ids back to text one at a time."""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from splitformer.model.languages import Frame

Surface = bytes | str
"""The text of a token; bytes where a character may be spelled in several tokens."""

SIGN, WORD, NAME, INSIDE = range(4)
"""Kinds of tokens: without letters; the beginning of a word, in small letters or not; and letters
inside a word."""

BEGINNINGS = (WORD, NAME)
"""Kinds that begin a word."""


class SourcePiece(NamedTuple):
    """A token of the source and the bytes it covers in the UTF-8 text, [begin, end)."""

    id: int
    begin: int
    end: int


class Tokenizer(ABC):
    """Turns sources into tokens and tokens into targets.

    Attributes:
        source_size: Every id of a source is below it.
        target_size: Every id that has a text of its own is below it.
    """

    source_size: int
    target_size: int
    _surfaces: Sequence[Surface]
    _strip_first: bool = True

    @abstractmethod
    def pieces(self, text: str) -> list[SourcePiece]:
        """Tokenise a text, with nothing around it. Text of white space may give nothing."""

    @abstractmethod
    def encode_target(self, text: str) -> list[int]:
        """Tokenise the beginning of a target, without an end token."""

    def encode_source(self, text: str, frame: Frame) -> list[SourcePiece]:
        """Tokenise a source and put the frame around it; what is added covers no bytes."""
        shift, length = len(frame.text.encode()), len(text.encode())
        own = self.pieces(frame.text + text)
        if shift:
            own = [SourcePiece(p.id, max(0, p.begin - shift), max(0, p.end - shift)) for p in own]
        before = [SourcePiece(token, 0, 0) for token in frame.before]
        return [*before, *own, *(SourcePiece(token, length, length) for token in frame.after)]

    def detokenizer(self) -> Detokenizer:
        """Return a fresh incremental detokenizer."""
        return Detokenizer(self._surfaces, self._strip_first)

    def token_kinds(self, size: int) -> bytes:
        """Return for each id below `size` what it is: SIGN, WORD, NAME or INSIDE."""
        texts = (s.decode(errors="replace") if isinstance(s, bytes) else s for s in self._surfaces)
        return bytes(map(_kind_of, texts))[:size].ljust(size, bytes((SIGN,)))

    def decode(self, ids: list[int]) -> str:
        """Return the text of a whole target."""
        detokenizer = self.detokenizer()
        return "".join(map(detokenizer.add, ids)) + detokenizer.finish()


class Detokenizer:
    """Turns ids into text as they come.

    Each call returns the text that has become certain, so that the pieces joined are the whole
    text: a character spelled in several byte tokens appears with its last byte, and the space that
    SentencePiece puts before the first word does not appear.

    Args:
        surfaces: The text of each id.
        strip_first: Leave out a space at the very beginning.
    """

    def __init__(self, surfaces: Sequence[Surface], strip_first: bool = True) -> None:
        self._surfaces = surfaces
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._strips = strip_first
        self._open = False  # bytes of a character are held back

    def fork(self) -> Detokenizer:
        """Return one that goes its own way from here."""
        twin = Detokenizer(self._surfaces, self._strips)
        twin._decoder.setstate(self._decoder.getstate())
        twin._open = self._open
        return twin

    def add(self, token: int) -> str:
        """Return the text that became certain with this token; may be empty.

        Ids beyond the tokenizer's pieces, with which some vocabularies are padded, have no text.
        """
        surface = self._surfaces[token] if token < len(self._surfaces) else ""
        if not (self._strips or self._open or isinstance(surface, bytes)):  # most often
            return surface
        if isinstance(surface, bytes):
            text = self._decoder.decode(surface)
            self._open = bool(self._decoder.getstate()[0])
        else:
            text = self._closed() + surface if self._open else surface
        return self._begin(text) if self._strips else text

    def peek(self, token: int) -> str:
        """Return what `add` would return; nothing changes."""
        surface = self._surfaces[token] if token < len(self._surfaces) else ""
        if not self._open and isinstance(surface, str):  # most often
            return surface.removeprefix(" ") if self._strips else surface
        state, strips, opened = self._decoder.getstate(), self._strips, self._open
        text = self.add(token)
        self._decoder.setstate(state)
        self._strips, self._open = strips, opened
        return text

    def finish(self) -> str:
        """Return what was held back; an incomplete character becomes U+FFFD."""
        return self._begin(self._closed())

    def _closed(self) -> str:
        self._open = False
        return self._decoder.decode(b"", final=True)

    def _begin(self, text: str) -> str:
        if text and self._strips:
            self._strips = False
            return text.removeprefix(" ")
        return text


def _kind_of(text: str) -> int:
    if not any(map(str.isalpha, text)):
        return SIGN
    if text[:1] != " ":
        return INSIDE
    return WORD if text.islower() else NAME
