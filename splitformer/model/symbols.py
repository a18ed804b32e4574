"""Sources spelled letter by letter, targets made of symbols with spaces between them.

For models whose text is not text in the usual sense, such as words to phonemes.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from splitformer.errors import ConfigurationError, InvalidArgumentError
from splitformer.model.tokenizer import SourcePiece, Tokenizer


class SymbolTokenizer(Tokenizer):
    """One table of letters, one of symbols.

    A letter matches whatever its case, width and accents: "É" is "e". White space around the source
    is left out; anything else that has no letter in the table is refused, since nothing sensible
    could come of it.

    Args:
        letters: Letter to id, of sources; lower case.
        symbols: Symbol to id, of targets.

    Raises:
        ConfigurationError: A table is empty or not one.
    """

    def __init__(self, letters: Mapping[str, int], symbols: Mapping[str, int]) -> None:
        self._letters = _checked("letters", letters)
        self._symbols = _checked("symbols", symbols)
        self.source_size = 1 + max(letters.values())
        self.target_size = 1 + max(symbols.values())
        names = {token: f" {symbol}" for symbol, token in symbols.items()}
        self._surfaces = [names.get(token, "") for token in range(self.target_size)]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SymbolTokenizer:
        """Take the tables from a parsed file; the error names the one that is missing."""
        for name in ("letters", "symbols"):
            if not isinstance(values.get(name), dict):
                raise ConfigurationError(
                    f"tokenizer: {name} must be an object, got {values.get(name)!r}"
                )
        return cls(values["letters"], values["symbols"])

    def pieces(self, text: str) -> list[SourcePiece]:
        """Spell a text.

        Raises:
            InvalidArgumentError: UNKNOWN_CHARACTER.
        """
        begin = len(text.encode()) - len(text.lstrip().encode())
        found: list[SourcePiece] = []
        for character in text.strip():
            end = begin + len(character.encode())
            found += [SourcePiece(token, begin, end) for token in self._spelled(character)]
            begin = end
        return found

    def encode_target(self, text: str) -> list[int]:
        """Read symbols with white space between them.

        Raises:
            InvalidArgumentError: UNKNOWN_CHARACTER.
        """
        unknown = [name for name in text.split() if name not in self._symbols]
        if unknown:
            rule = f"must consist of {' '.join(self._symbols)}"
            raise InvalidArgumentError.of("text", rule, unknown[0], reason="UNKNOWN_CHARACTER")
        return [self._symbols[name] for name in text.split()]

    def _spelled(self, character: str) -> list[int]:
        letters = unicodedata.normalize("NFKD", character.replace("\u2019", "'")).casefold()
        bare = [letter for letter in letters if not unicodedata.combining(letter)]
        if any(letter not in self._letters for letter in bare):
            rule = f"must consist of {' '.join(self._letters)}"
            raise InvalidArgumentError.of(
                "source.text", rule, character, reason="UNKNOWN_CHARACTER"
            )
        return [self._letters[letter] for letter in bare]


def _checked(name: str, table: Mapping[str, int]) -> Mapping[str, int]:
    wrong = [entry for entry, token in table.items() if type(token) is not int or token < 0]
    if wrong or not table:
        raise ConfigurationError(
            f"tokenizer: {name} must map to integers of at least 0, got {table or 'none'!r}"
        )
    return table
