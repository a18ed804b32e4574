"""Text as its UTF-8 bytes (Xue et al. 2022, "ByT5")."""

from __future__ import annotations

from splitformer.model.tokenizer import SourcePiece, Surface, Tokenizer

_SPECIAL = 3
"""Padding, end and unknown come before the bytes."""


class ByteTokenizer(Tokenizer):
    """Each byte is a token; ids behind the bytes have no text."""

    _strip_first = False

    def __init__(self) -> None:
        surfaces: list[Surface] = [""] * _SPECIAL
        self._surfaces = surfaces + [bytes([byte]) for byte in range(256)]
        self.source_size = self.target_size = len(self._surfaces)

    def pieces(self, text: str) -> list[SourcePiece]:
        """Tokenise a text, with nothing around it."""
        return [SourcePiece(_SPECIAL + b, i, i + 1) for i, b in enumerate(text.encode())]

    def encode_target(self, text: str) -> list[int]:
        """Tokenise the beginning of a target, without an end token."""
        return [_SPECIAL + byte for byte in text.encode()]
