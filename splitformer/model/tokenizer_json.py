"""`tokenizer.json` files, run by the library that defines them (Hugging Face's `tokenizers`)."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

import tokenizers

from splitformer.errors import ConfigurationError
from splitformer.model.byte_level import bytes_of
from splitformer.model.tokenizer import SourcePiece, Surface
from splitformer.model.tokenizer_library import LibraryTokenizer, byte_offsets

_SPACE = "\u2581"


class JsonTokenizer(LibraryTokenizer):
    """A tokenizer that one file describes, without what it would put around a source.

    Args:
        data: The file.
        name: Its name, for errors.
        silent: Ids that have no text.
        spelled: True if a text may spell special tokens, as in "<extra_id_0>".

    Raises:
        ConfigurationError: It cannot be read or turns tokens into text in a way we do not know.
    """

    def __init__(
        self, data: bytes, name: str, silent: Collection[int] = (), spelled: bool = False
    ) -> None:
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(data.decode())
        except Exception as error:  # the library raises nothing narrower
            raise ConfigurationError(f"tokenizer: cannot read {name}: {error}") from error
        self._tokenizer.encode_special_tokens = not spelled
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.ids: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        self.source_size = self.target_size = 1 + max(self.ids.values(), default=-1)
        kinds = set(_decoder_kinds(json.loads(data).get("decoder") or {}))
        if not kinds or kinds - _KNOWN:
            raise ConfigurationError(
                f"tokenizer: {name} must turn tokens into text by {', '.join(sorted(_KNOWN))},"
                f" got {', '.join(sorted(kinds)) or '(nothing)'}"
            )
        self._strip_first = "ByteLevel" not in kinds
        self._surfaces = self._all_surfaces(kinds, silent)

    def pieces(self, text: str) -> list[SourcePiece]:
        """Tokenise a text, with nothing around it."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        starts = byte_offsets(text)
        # What the library prepends covers the first character too, and so may several tokens of
        # one character: the last of them has it.
        nexts = [*(begin for begin, _ in encoding.offsets[1:]), len(text)]
        return [
            SourcePiece(token, starts[begin], starts[max(begin, min(end, following))])
            for token, (begin, end), following in zip(
                encoding.ids, encoding.offsets, nexts, strict=True
            )
        ]

    def _all_surfaces(self, kinds: set[str], silent: Collection[int]) -> list[Surface]:
        added = self._tokenizer.get_added_tokens_decoder()
        surfaces: list[Surface] = [""] * self.target_size
        for piece, token in self.ids.items():
            if token in silent or (token in added and added[token].special):
                continue
            surfaces[token] = piece if token in added else _surface(piece, kinds)
        return surfaces


_KNOWN = frozenset(("ByteLevel", "Metaspace", "ByteFallback", "Replace", "Fuse", "Strip"))


def _decoder_kinds(decoder: dict[str, Any]) -> Iterator[str]:
    """Names of the parts of the `decoder` of a tokenizer.json."""
    if decoder.get("type") == "Sequence":
        for part in decoder.get("decoders", ()):
            yield from _decoder_kinds(part)
    elif "type" in decoder:
        yield str(decoder["type"])


def _surface(piece: str, kinds: set[str]) -> Surface:
    if "ByteLevel" in kinds:
        return bytes_of(piece)
    if "ByteFallback" in kinds and len(piece) == 6 and piece.startswith("<0x"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace(_SPACE, " ")
