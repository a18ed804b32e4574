"""Byte-level byte-pair encoding (Radford et al. 2019, 2.2), as GPT-2, BART and Whisper have it.

Every byte has a printable character that stands for it; tokens are strings of those. So no text is
unknown, and a character may be spelled in several tokens.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import models, pre_tokenizers

from splitformer.errors import ConfigurationError
from splitformer.model.files import Files
from splitformer.model.tokenizer import SourcePiece, Surface
from splitformer.model.tokenizer_library import LibraryTokenizer, byte_offsets

_WHOLE, _VOCABULARY, _MERGES, _ADDED = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
)


class ByteLevelTokenizer(LibraryTokenizer):
    """A byte-level vocabulary and its merges.

    Args:
        vocabulary: Token to id, tokens that text is never split into among them or not.
        merges: Pairs of tokens, the most important first.
        silent: Ids without a text.
        prefix_space: Write a space before the text, so that its first word is like any other.

    Raises:
        ConfigurationError: They do not fit together.
    """

    def __init__(
        self,
        vocabulary: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        silent: Collection[int] = (),
        prefix_space: bool = False,
    ) -> None:
        self._strip_first = prefix_space
        self.vocabulary = vocabulary
        self._tokenizer = _built(vocabulary, merges, prefix_space)
        self.source_size = self.target_size = 1 + max(vocabulary.values())
        surfaces: list[Surface] = [""] * self.target_size
        for token, number in vocabulary.items():
            if number not in silent:
                surfaces[number] = bytes_of(token)
        self._surfaces = surfaces

    def pieces(self, text: str) -> list[SourcePiece]:
        """Tokenise a text, with nothing around it."""
        encoding, places = (
            self._tokenizer.encode(text, add_special_tokens=False),
            byte_offsets(text),
        )
        return [
            SourcePiece(token, places[begin], places[end])
            for token, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True)
        ]


def read_byte_level(files: Files) -> tuple[dict[str, int], list[tuple[str, str]], dict[str, int]]:
    """Read a folder's tokenizer.json, or vocab.json, merges.txt and added_tokens.json.

    Returns:
        The vocabulary, the merges, and tokens with ids that were added to the vocabulary.

    Raises:
        ConfigurationError: A file is missing or not what it should be.
    """
    if files.has(_WHOLE):
        return _parts_of(files.vocabulary(_WHOLE))
    vocabulary = _ids(_VOCABULARY, files.vocabulary(_VOCABULARY))
    added = _ids(_ADDED, files.vocabulary(_ADDED)) if files.has(_ADDED) else {}
    lines = files.content(_MERGES).decode("utf-8", "replace").splitlines()
    merges = [line for line in lines if line and not line.startswith("#version")]
    return vocabulary, [_pair(_MERGES, line) for line in merges], added


def _parts_of(
    whole: Mapping[str, Any],
) -> tuple[dict[str, int], list[tuple[str, str]], dict[str, int]]:
    try:
        model = whole["model"]
        if model["type"] != "BPE":
            raise ConfigurationError(f"{_WHOLE}: model.type must be 'BPE', got {model['type']!r}")
        vocabulary = _ids(_WHOLE, model["vocab"])
        added = {each["content"]: each["id"] for each in whole["added_tokens"]}
        merges = [_pair(_WHOLE, each) for each in model["merges"]]
    except (KeyError, TypeError) as error:
        raise ConfigurationError(f"{_WHOLE}: is no tokenizer: {error!r}") from error
    return vocabulary, merges, _ids(_WHOLE, added)


def _ids(file: str, values: Mapping[str, Any]) -> dict[str, int]:
    for token, number in values.items():
        if type(number) is not int or number < 0:
            raise ConfigurationError(
                f"{file}: the id of {token!r} must be an integer of at least 0, got {number!r}"
            )
    return dict(values)


def _pair(file: str, merge: object) -> tuple[str, str]:
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(parts, list) or len(parts) != 2:
        raise ConfigurationError(f"{file}: a merge must be a pair of tokens, got {merge!r}")
    return parts[0], parts[1]


def _built(
    vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]], prefix_space: bool
) -> tokenizers.Tokenizer:
    known = {token for pair in merges for token in (*pair, "".join(pair))}
    if missing := sorted(known - vocabulary.keys()):
        raise ConfigurationError(f"tokenizer: a merge needs {missing[0]!r}, which has no id")
    if missing := sorted(set(_CHARACTERS.values()) - vocabulary.keys()):
        raise ConfigurationError(f"tokenizer: byte {json.dumps(missing[0])} has no id")
    built = tokenizers.Tokenizer(models.BPE(dict(vocabulary), list(merges)))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    return built


def _characters() -> dict[int, str]:
    """What stands for each byte: itself where it prints, else a character from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + place) for place, byte in enumerate(others)
    }


_CHARACTERS = _characters()
_BYTES = {character: byte for byte, character in _CHARACTERS.items()}


def bytes_of(token: str) -> bytes:
    """Return the bytes that a token stands for; characters that stand for none are themselves."""
    spelled = [
        bytes([_BYTES[character]]) if character in _BYTES else character.encode()
        for character in token
    ]
    return b"".join(spelled)
