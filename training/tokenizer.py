"""Trains the joint SentencePiece model and reads it.

Piece ids: 0 padding, 1 end of sentence, 2 unknown, then one control symbol per target language,
which is the decoder's first token. User text can never produce a control symbol.
Source: Kudo and Richardson 2018, https://arxiv.org/abs/1808.06226.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import sentencepiece

from training.recipe import LANGUAGES

PAD, EOS, UNKNOWN = 0, 1, 2


@dataclass(frozen=True, slots=True)
class TokenizerSettings:
    """How the SentencePiece model is trained.

    Attributes:
        pieces: size of the vocabulary, bytes and control symbols included.
        coverage: share of characters that get a piece; the rest falls back to bytes.
        sentences: texts sampled for training.
        seed: seeds the sampling.
        threads: threads of the trainer; they change nothing in the result but its time.
    """

    pieces: int = 12_000
    coverage: float = 0.9995
    sentences: int = 400_000
    seed: int = 1
    threads: int = 2


def language_ids() -> dict[str, int]:
    """Returns the piece id of every target language's control symbol."""
    return {language: UNKNOWN + 1 + index for index, language in enumerate(LANGUAGES)}


def train_tokenizer(texts: Iterable[str], path: Path, settings: TokenizerSettings) -> None:
    """Trains a model on the texts and writes it to ``path``.

    Normalisation is off: NFKC would turn full-width CJK punctuation into ASCII.
    """
    model = io.BytesIO()
    sentencepiece.set_random_generator_seed(settings.seed)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=settings.pieces,
        character_coverage=settings.coverage,
        input_sentence_size=settings.sentences,
        shuffle_input_sentence=True,
        byte_fallback=True,
        normalization_rule_name="identity",
        control_symbols=[f"<{language}>" for language in LANGUAGES],
        pad_id=PAD,
        eos_id=EOS,
        unk_id=UNKNOWN,
        bos_id=-1,
        num_threads=settings.threads,
        minloglevel=2,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.getvalue())


class Tokenizer:
    """Text to piece ids and back."""

    def __init__(self, path: Path) -> None:
        """Loads a model.

        Raises:
            ValueError: the control symbols are not where the decoder expects them.
        """
        self._processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        for language, identifier in language_ids().items():
            if self._processor.id_to_piece(identifier) != f"<{language}>":
                raise ValueError(f"path: piece {identifier} of {path} must be <{language}>")

    def __len__(self) -> int:
        """Returns the size of the vocabulary."""
        return int(self._processor.get_piece_size())

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Returns the piece ids of each text, without any special id."""
        pieces: list[list[int]] = self._processor.encode(texts, out_type=int)
        return pieces

    def decode(self, pieces: list[int]) -> str:
        """Returns the text of piece ids; special ids give nothing."""
        text: str = self._processor.decode([piece for piece in pieces if piece > UNKNOWN])
        return text
