"""SentencePiece models (Kudo and Richardson 2018), alone or behind a vocabulary of their own."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import sentencepiece

from splitformer.errors import ConfigurationError
from splitformer.model.tokenizer import SourcePiece, Surface, Tokenizer

_SPACE = "\u2581"
# One character for one, so that offsets stay true (all of them one byte long).
_LINE_BREAKS_TO_SPACES = str.maketrans("\t\n\r\v\f", "     ")


def load_processor(data: bytes, name: str) -> sentencepiece.SentencePieceProcessor:
    """Open a SentencePiece model; ConfigurationError names its file if it is none."""
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(data)
    except (OSError, RuntimeError) as error:
        raise ConfigurationError(f"tokenizer: cannot read {name}: {error}") from error
    if not processor.GetPieceSize():
        raise ConfigurationError(f"tokenizer: cannot read {name}: it holds no pieces")
    return processor


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece model whose ids are the model's own.

    Args:
        data: The `.model` file.
        name: Its name, for errors.

    Raises:
        ConfigurationError: It is no SentencePiece model.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self._processor = load_processor(data, name)
        self.source_size = self.target_size = self._processor.GetPieceSize()
        self._surfaces = [self._surface(token) for token in range(self.target_size)]

    def pieces(self, text: str) -> list[SourcePiece]:
        """Tokenise a text, with nothing around it."""
        return _mapped(self._processor, text)

    def encode_target(self, text: str) -> list[int]:
        """Tokenise the beginning of a target, without an end token."""
        ids: list[int] = self._processor.encode(text.translate(_LINE_BREAKS_TO_SPACES))
        return ids

    def _surface(self, token: int) -> Surface:
        processor = self._processor
        if processor.IsControl(token) or processor.IsUnused(token):
            return ""
        if processor.IsUnknown(token):
            return "\ufffd"
        return _surface_of(processor.IdToPiece(token), processor.IsByte(token))


class VocabularyTokenizer(Tokenizer):
    """SentencePiece models that cut, and vocabularies that number the pieces.

    Args:
        source: Cuts sources.
        target: Cuts targets.
        source_ids: Piece to id of sources.
        target_ids: Piece to id of targets.
        unknown: The piece that stands for those without an id.
        silent: Ids that have no text.

    Raises:
        ConfigurationError: A vocabulary is not one.
    """

    def __init__(
        self,
        source: sentencepiece.SentencePieceProcessor,
        target: sentencepiece.SentencePieceProcessor,
        source_ids: Mapping[str, int],
        target_ids: Mapping[str, int],
        unknown: str = "<unk>",
        silent: Collection[int] = (),
    ) -> None:
        self._source, self._target = source, target
        self._source_ids = _checked(source_ids, unknown)
        self._target_ids = _checked(target_ids, unknown)
        self._unknown = unknown
        self.source_size = 1 + max(source_ids.values())
        self.target_size = 1 + max(target_ids.values())
        surfaces: list[Surface] = [""] * self.target_size
        for piece, token in target_ids.items():
            if token not in silent and piece != unknown:
                surfaces[token] = _surface_of(piece, _is_byte(target, piece))
        self._surfaces = surfaces

    def pieces(self, text: str) -> list[SourcePiece]:
        """Tokenise a text, with nothing around it."""
        spans = _mapped(self._source, text)
        names = self._source.encode(text.translate(_LINE_BREAKS_TO_SPACES), out_type=str)
        ids = self._numbered(names, self._source_ids)
        return [
            SourcePiece(token, span.begin, span.end) for token, span in zip(ids, spans, strict=True)
        ]

    def encode_target(self, text: str) -> list[int]:
        """Tokenise the beginning of a target, without an end token."""
        names = self._target.encode(text.translate(_LINE_BREAKS_TO_SPACES), out_type=str)
        return self._numbered(names, self._target_ids)

    def _numbered(self, names: list[str], ids: Mapping[str, int]) -> list[int]:
        unknown = ids[self._unknown]
        return [ids.get(name, unknown) for name in names]


def _mapped(processor: sentencepiece.SentencePieceProcessor, text: str) -> list[SourcePiece]:
    mapped = processor.encode(
        text.translate(_LINE_BREAKS_TO_SPACES), return_type="offset_mapping", return_bytes=True
    )
    return [
        SourcePiece(token, begin, end)
        for token, (begin, end) in zip(mapped["ids"], mapped["offsets"], strict=True)
    ]


def _surface_of(piece: str, is_byte: bool) -> Surface:
    return bytes([int(piece[3:5], 16)]) if is_byte else piece.replace(_SPACE, " ")  # "<0x0A>"


def _is_byte(processor: sentencepiece.SentencePieceProcessor, piece: str) -> bool:
    return bool(processor.IsByte(processor.PieceToId(piece)))


def _checked(ids: Mapping[str, int], unknown: str) -> Mapping[str, int]:
    """Return a vocabulary if it maps pieces to ids and knows the unknown one."""
    wrong = [piece for piece, token in ids.items() if type(token) is not int or token < 0]
    if wrong:
        raise ConfigurationError(
            f"tokenizer: the id of {wrong[0]!r} must be an integer of at least 0,"
            f" got {ids[wrong[0]]!r}"
        )
    if unknown not in ids:
        raise ConfigurationError(f"tokenizer: the vocabulary has no {unknown!r}")
    return ids
