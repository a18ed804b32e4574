"""What tokenizers share that Hugging Face's library `tokenizers` runs."""

from __future__ import annotations

import tokenizers

from splitformer.model.tokenizer import Tokenizer


class LibraryTokenizer(Tokenizer):
    """A tokenizer that the library runs."""

    _tokenizer: tokenizers.Tokenizer

    def encode_target(self, text: str) -> list[int]:
        """Tokenise the beginning of a target, without an end token."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def byte_offsets(text: str) -> list[int]:
    """Where each character begins in UTF-8, and where the last one ends.

    The library counts in characters.
    """
    offsets = [0]
    for character in text:
        offsets.append(offsets[-1] + len(character.encode()))
    return offsets
