"""Text to token ids with byte spans, and token ids back to text one at a time."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from pathlib import Path

import sentencepiece

from splitformer.errors import ConfigurationError

_SPACE = "\u2581"
# One character for one, so that offsets stay true (all of them one byte long).
_LINE_BREAKS_TO_SPACES = str.maketrans("\t\n\r\v\f", "     ")


@dataclass(frozen=True, slots=True)
class SourcePiece:
    """A token of the source and the bytes it covers in the UTF-8 text, [begin, end)."""

    id: int
    begin: int
    end: int


class Tokenizer:
    """A SentencePiece model (Kudo and Richardson 2018) and its end token.

    Args:
        path: The `.model` file.
        eos_id: Id appended to every source.

    Raises:
        ConfigurationError: The file is missing or not a SentencePiece model.
    """

    def __init__(self, path: Path, eos_id: int) -> None:
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.Load(str(path))
        except (OSError, RuntimeError) as error:
            raise ConfigurationError(f"tokenizer: cannot read {path.name}: {error}") from error
        self.eos_id = eos_id
        self.vocabulary_size: int = self._processor.GetPieceSize()
        self._surfaces = [self._surface(i) for i in range(self.vocabulary_size)]

    def encode_source(self, text: str) -> list[SourcePiece]:
        """Tokenise a source; the end token comes last. Text of white space gives that one alone."""
        mapped = self._processor.encode(
            text.translate(_LINE_BREAKS_TO_SPACES), return_type="offset_mapping", return_bytes=True
        )
        pieces = [
            SourcePiece(token, begin, end)
            for token, (begin, end) in zip(mapped["ids"], mapped["offsets"], strict=True)
        ]
        length = len(text.encode())
        return [*pieces, SourcePiece(self.eos_id, length, length)]

    def encode_target(self, text: str) -> list[int]:
        """Tokenise the beginning of a target, without an end token."""
        ids: list[int] = self._processor.encode(text.translate(_LINE_BREAKS_TO_SPACES))
        return ids

    def detokenizer(self) -> Detokenizer:
        """Return a fresh incremental detokenizer."""
        return Detokenizer(self._surfaces)

    def decode(self, ids: list[int]) -> str:
        """Return the text of a whole target."""
        detokenizer = self.detokenizer()
        return "".join(map(detokenizer.add, ids)) + detokenizer.finish()

    def _surface(self, token: int) -> bytes | str:
        processor = self._processor
        if processor.IsControl(token) or processor.IsUnused(token):
            return ""
        piece: str = processor.IdToPiece(token)
        if processor.IsByte(token):
            return bytes([int(piece[3:5], 16)])  # "<0x0A>"
        return "\ufffd" if processor.IsUnknown(token) else piece.replace(_SPACE, " ")


class Detokenizer:
    """Turns ids into text as they come.

    Each call returns the text that has become certain, so that the pieces joined are the whole
    text: a character spelled in several byte tokens appears with its last byte, and the space that
    SentencePiece puts before the first word does not appear.
    """

    def __init__(self, surfaces: list[bytes | str]) -> None:
        self._surfaces = surfaces
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at_start = True

    def add(self, token: int) -> str:
        """Return the text that became certain with this token; may be empty.

        Ids beyond the tokenizer's pieces, with which some vocabularies are padded, have no text.
        """
        surface = self._surfaces[token] if token < len(self._surfaces) else ""
        if isinstance(surface, bytes):
            return self._begin(self._decoder.decode(surface))
        return self._begin(self._decoder.decode(b"", final=True) + surface)

    def finish(self) -> str:
        """Return what was held back; an incomplete character becomes U+FFFD."""
        return self._begin(self._decoder.decode(b"", final=True))

    def _begin(self, text: str) -> str:
        if text and self._at_start:
            self._at_start = False
            return text.removeprefix(" ")
        return text
