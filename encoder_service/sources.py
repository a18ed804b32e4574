"""What callers send, turned into what the encoder takes in, or refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from splitformer.errors import InvalidArgumentError
from splitformer.model.audio.features import LogMel, Samples
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.encoding import STRIDE, Features, Source
from splitformer.model.tokenizer import SourcePiece
from splitformer.serving import languages, models


@dataclass(frozen=True, slots=True)
class TokenizedSource:
    """A source as tokens.

    Attributes:
        pieces: The tokens, at least one.
        target_language: What its memory will be bound to; empty: to none.
        seconds: How long it took to find them.
        text: The source; empty if it came as tokens.
    """

    pieces: Sequence[SourcePiece]
    target_language: str
    seconds: float = 0.0
    text: str = ""

    @property
    def key(self) -> Hashable:
        """Equal for sources that have the same memory and the same header."""
        return tuple(self.pieces), self.target_language, self.text

    @property
    def given(self) -> Source:
        """What the encoder takes in."""
        return [piece.id for piece in self.pieces]


@dataclass(frozen=True, slots=True)
class HeardSource:
    """A piece of audio as features.

    Attributes:
        given: The features.
        seconds: How long it took to compute them.
    """

    given: Features
    seconds: float
    pieces: Sequence[SourcePiece] = ()
    target_language: str = ""
    text: str = ""


class Sources:
    """The rules of one model's sources.

    Args:
        checkpoint: The model.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._description = checkpoint.description
        self._tokenizer = checkpoint.tokenizer
        self._name = checkpoint.description.name

    @property
    def first(self) -> Source:
        """A short one to begin with."""
        speech = self._description.speech
        if speech is None:
            return [self._description.eos_id]
        return Features(np.zeros((STRIDE, speech.features.bins), np.float32))

    def check_takes_text(self) -> None:
        """InvalidArgumentError SOURCE_IS_AUDIO if sources of the model are audio."""
        if self._description.speech is not None:
            raise InvalidArgumentError.of(
                "model",
                "must take text; use EncodeAudio for audio",
                self._name,
                reason="SOURCE_IS_AUDIO",
            )

    def tokenize(self, text: str, language: str, target_language: str) -> TokenizedSource:
        """Turn text into tokens.

        Args:
            text: The source.
            language: Its language; empty: the model's own.
            target_language: Target language, for models whose memories are bound to one.

        Raises:
            InvalidArgumentError: UNKNOWN_LANGUAGE, LANGUAGE_ON_DECODER, EMPTY_SOURCE or
                SOURCE_TOO_LONG.
        """
        known = self._description.languages
        bound = languages.bound_language(known, language, target_language, text)
        self._check_characters(text)
        started = time.perf_counter()
        frame = languages.frame_of(known, language, bound, text)
        pieces = self._tokenizer.encode_source(text, frame)
        if not text.strip() or all(piece.begin == piece.end for piece in pieces):
            raise InvalidArgumentError.of(
                "source.text", "must hold more than white space", text[:20], reason="EMPTY_SOURCE"
            )
        self._check_length("source.text", len(pieces))
        return TokenizedSource(pieces, bound, time.perf_counter() - started, text)

    def accept_tokens(
        self, ids: Sequence[int], language: str, target_language: str
    ) -> TokenizedSource:
        """Check token ids given by the caller, who has framed them as the languages ask for.

        Raises:
            InvalidArgumentError: UNKNOWN_LANGUAGE, LANGUAGE_ON_DECODER, EMPTY_SOURCE,
                SOURCE_TOO_LONG or TOKEN_OUT_OF_RANGE.
        """
        known = self._description.languages
        if language or target_language:
            languages.bound_language(known, language, target_language)
        if not ids:
            raise InvalidArgumentError.of(
                "source.tokens.ids", "must hold at least one id", [], reason="EMPTY_SOURCE"
            )
        self._check_length("source.tokens.ids", len(ids))
        size = self._description.architecture.source_vocabulary_size
        models.check_token_ids(ids, size, "source.tokens.ids")
        return TokenizedSource([SourcePiece(token, 0, 0) for token in ids], target_language)

    async def hear(self, samples: Samples) -> HeardSource:
        """Compute the features of at most a window of samples."""
        started = time.perf_counter()
        features = Features(await asyncio.to_thread(self.features, samples))
        return HeardSource(features, time.perf_counter() - started)

    @property
    def features(self) -> LogMel:
        """What the model takes in.

        Raises:
            InvalidArgumentError: SOURCE_IS_TEXT, the model takes no audio.
        """
        speech = self._description.speech
        if speech is None:
            raise InvalidArgumentError.of(
                "model", "must take audio; use Encode for text", self._name, reason="SOURCE_IS_TEXT"
            )
        return speech.features

    def _check_characters(self, text: str) -> None:
        limit = self._description.architecture.max_positions
        most = limit * models.CHARACTERS_PER_TOKEN
        if len(text) > most:
            raise InvalidArgumentError.of(
                "source.text",
                f"must be at most {limit} tokens long, which more than {most} characters never are",
                len(text),
                reason="SOURCE_TOO_LONG",
                metadata={"limit": str(limit), "characters": str(len(text))},
            )

    def _check_length(self, field: str, length: int) -> None:
        limit = self._description.architecture.max_positions
        if length > limit:
            raise InvalidArgumentError.of(
                field,
                f"must be at most {limit} tokens long",
                length,
                reason="SOURCE_TOO_LONG",
                metadata={"limit": str(limit), "length": str(length)},
            )
