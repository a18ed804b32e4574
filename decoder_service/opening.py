"""What must hold before a session is opened, and how much room it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from splitformer.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    Violation,
    check_all,
    shown,
)
from splitformer.model.cache import CrossCache, SelfCache
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.speech import TRANSCRIBE
from splitformer.model.stepping import StepDecoder
from splitformer.model.tokenizer import Detokenizer, SourcePiece
from splitformer.serving import languages, models
from splitformer.v1 import tensor_pb2
from splitformer.wire import FloatArray, checked_shape


@dataclass(frozen=True, slots=True)
class SpeechWish:
    """What a model of speech is asked to write.

    Attributes:
        task: "transcribe" or "translate".
        times: Mark times.
    """

    task: str = TRANSCRIBE
    times: bool = False


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller asks of a new session.

    Attributes:
        language: Target language.
        prefix: Beginning of the target, as text, as ids or None.
        max_positions: Positions to make room for; 0: all the model has.
        speech: Of a model of speech; None: nothing in particular.
    """

    language: str
    prefix: str | Sequence[int] | None = None
    max_positions: int = 0
    speech: SpeechWish | None = None


@dataclass(frozen=True, slots=True)
class Branch:
    """What a fork keeps of the session it comes from.

    Attributes:
        language: Another target language, which starts from the beginning; empty: the same.
        keep_tokens: Produced tokens to keep; None: all, or none in another language.
    """

    language: str = ""
    keep_tokens: int | None = None


class OpeningRules:
    """The rules of one model.

    Args:
        checkpoint: The model.
        dtype_name: Wire type of its memories.
        decoder: Says how it holds keys and values.
    """

    def __init__(self, checkpoint: Checkpoint, dtype_name: str, decoder: StepDecoder) -> None:
        self._checkpoint = checkpoint
        self._description = checkpoint.description
        self._config = checkpoint.description.architecture
        self._dtype = models.memory_dtype(dtype_name)
        self._element_bytes, self._page = decoder.element_bytes, decoder.source_page

    def start_tokens(self, wish: Wish) -> tuple[int, ...]:
        """Return the decoder's first input: language token, then prefix.

        A language that is to be found out is taken to be any: they take the same room.

        Raises:
            InvalidArgumentError: UNKNOWN_LANGUAGE, TOKEN_OUT_OF_RANGE, TARGET_TOO_LONG or
                BAD_OPTION.
        """
        known = self._description.languages
        check_all(
            lambda: languages.check_target(known, wish.language),
            lambda: self._check_ids(wish.prefix or (), "target_prefix"),
            lambda: self.positions(wish),
            lambda: self._behind_language(wish.speech),
        )
        language = known.targets[0] if self.detects(wish.language) else wish.language
        start = (
            *known.starts[language if known.on_decoder else ""],
            *self._behind_language(wish.speech),
        )
        limit = self.positions(wish)
        prefix = self._ids(wish.prefix or (), limit, len(start), "target_prefix")
        return (*start, *prefix)

    @staticmethod
    def forced(wish: Wish, start: tuple[int, ...]) -> int:
        """Return how many of the start tokens count as said; see `Target.forced`."""
        return 0 if wish.prefix else len(start) - 1

    def scored_tokens(
        self, target: str | Sequence[int], include_end: bool, start: int
    ) -> tuple[int, ...]:
        """Return the tokens of a target that is to be scored behind `start` tokens.

        Raises:
            InvalidArgumentError: EMPTY_TARGET, TOKEN_OUT_OF_RANGE or TARGET_TOO_LONG.
        """
        room = self._config.max_positions + (not include_end)  # the last one is no input
        tokens = self._ids(target, room, start, "target")
        if not tokens and not include_end:
            raise InvalidArgumentError.of(
                "target", "must hold a token, or include_end", target, reason="EMPTY_TARGET"
            )
        return (*tokens, self._description.eos_id) if include_end else tuple(tokens)

    def detokenizer(self, start: Sequence[int], *produced: int) -> Detokenizer:
        """Return a detokenizer that has seen what comes before, so that spaces come out right."""
        detokenizer = self._checkpoint.tokenizer.detokenizer()
        for token in (*start[1:], *produced):
            detokenizer.add(token)
        return detokenizer

    def detects(self, language: str) -> bool:
        """True if a session's language has to be found out."""
        speech = self._description.speech
        return speech is not None and speech.detects and not language

    def same_speech(self, start: tuple[int, ...]) -> SpeechWish | None:
        """Return what a session was asked to write, from its decoder's first input."""
        speech = self._description.speech
        return None if speech is None else SpeechWish(*speech.told(start))

    def positions(self, wish: Wish) -> int:
        """Return the longest decoder input; InvalidArgumentError TARGET_TOO_LONG if too long."""
        most = self._config.max_positions
        if not 0 <= wish.max_positions <= most:
            raise InvalidArgumentError.of(
                "max_positions",
                f"must be 0 to {most}",
                wish.max_positions,
                reason="TARGET_TOO_LONG",
            )
        return wish.max_positions or most

    def check_header(self, header: tensor_pb2.MemoryHeader, language: str) -> None:
        """Raise unless a memory is of our model and fits it and the session's language.

        Raises:
            FailedPreconditionError: WRONG_MEMORY_KIND, FINGERPRINT_MISMATCH or LANGUAGE_BOUND.
            InvalidArgumentError: BAD_DTYPE, BAD_SHAPE, BAD_SOURCE_TOKENS or BAD_SOURCE_TEXT.
        """
        if header.kind != tensor_pb2.MEMORY_KIND_SEQUENCE:
            raise FailedPreconditionError(
                f"memory.kind: must be MEMORY_KIND_SEQUENCE, got {_kind_name(header.kind)}",
                reason="WRONG_MEMORY_KIND",
            )
        if header.fingerprint.model != self._checkpoint.fingerprint:
            raise FailedPreconditionError(
                "memory.fingerprint.model: must be this model's"
                f" ({self._checkpoint.fingerprint[:12]}...), got"
                f" {header.fingerprint.model[:12]!r} of model {shown(header.model)}",
                reason="FINGERPRINT_MISMATCH",
            )
        languages.check_bound(self._description.languages, language, header.target_language)
        if header.dtype != self._dtype:
            raise InvalidArgumentError.of(
                "memory.dtype",
                f"must be {tensor_pb2.DataType.Name(self._dtype)}",
                header.dtype,
                reason="BAD_DTYPE",
            )
        shape = checked_shape(header.dtype, header.shape, "memory")
        self._check_shape(shape)
        self._check_source(header.source_tokens, shape[0])
        self._check_text(header)

    def check_values(self, memory: FloatArray) -> None:
        """InvalidArgumentError NOT_FINITE if a memory holds infinities or NaNs."""
        if not np.isfinite(memory).all():
            raise InvalidArgumentError.of(
                "memory", "must hold finite numbers only", "infinity or NaN", reason="NOT_FINITE"
            )

    def check_branch(self, branch: Branch, language: str, produced: int) -> int:
        """Return how many of the produced tokens a fork keeps.

        Raises:
            InvalidArgumentError: BAD_KEEP.
            FailedPreconditionError: KEEP_AHEAD or LANGUAGE_BOUND.
        """
        other = branch.language not in ("", language)
        if other and not self._description.languages.on_decoder:
            languages.check_bound(self._description.languages, branch.language, language)
        kept = branch.keep_tokens
        if kept is not None and (kept < 0 or (other and kept)):
            rule = "must be 0 or unset with another language" if other else "must be at least 0"
            raise InvalidArgumentError.of("keep_tokens", rule, kept, reason="BAD_KEEP")
        if kept is not None and kept > produced:
            raise FailedPreconditionError(
                f"keep_tokens: must be at most {produced}, what was produced, got {kept}",
                reason="KEEP_AHEAD",
            )
        return produced if kept is None else kept

    def memory_bytes(self, source_positions: int) -> int:
        """Return what a memory's keys and values count against the budget."""
        stack = self._config.decoder
        held = -(-source_positions // self._page) * self._page
        return CrossCache.bytes_for(held, stack.layers, stack.width, self._element_bytes)

    def own_bytes(self, positions: int) -> int:
        """Return what a session's own keys and values count, once all positions are used."""
        layers, width = self._config.decoder.layers, self._config.decoder.width
        return SelfCache.bytes_for(positions, layers, width, self._element_bytes)

    def _behind_language(self, wish: SpeechWish | None) -> tuple[int, ...]:
        """Return what models of speech are told behind the language."""
        speech = self._description.speech
        if speech is None:
            if wish is not None:
                rule = "must not be set: this model's sources are text"
                raise InvalidArgumentError.of("speech", rule, wish.task, reason="BAD_OPTION")
            return ()
        wish = wish or SpeechWish()
        known = tuple(speech.tasks) or (TRANSCRIBE,)
        if wish.task not in known:
            raise InvalidArgumentError.of(
                "speech.task", f"must be one of {', '.join(known)}", wish.task, reason="BAD_OPTION"
            )
        return speech.behind_language(wish.task, wish.times)

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        width, most = self._config.d_model, self._config.longest_source
        if len(shape) != 2 or shape[1] != width or shape[0] > most:
            raise InvalidArgumentError.of(
                "memory.shape", f"must be [1 to {most}, {width}]", list(shape), reason="BAD_SHAPE"
            )

    def _check_source(self, source: Sequence[tensor_pb2.SourceToken], rows: int) -> None:
        """BAD_SOURCE_TOKENS unless there is one piece of the vocabulary per row, or none at all."""
        size = self._config.source_vocabulary_size
        if source and len(source) != rows:
            rule, value = f"must be none, or one for each of the {rows} rows", len(source)
            raise _bad_source("", rule, value)
        for i, token in enumerate(source):
            if not 0 <= token.id < size:
                raise _bad_source(f"[{i}].id", f"must be at least 0 and below {size}", token.id)
            if not 0 <= token.begin <= token.end:
                rule = "must begin at 0 or later and not end before it begins"
                raise _bad_source(f"[{i}]", rule, [token.begin, token.end])

    def _check_text(self, header: tensor_pb2.MemoryHeader) -> None:
        """BAD_SOURCE_TEXT unless a source's text, if there is one, has room for all spans."""
        text, most = header.source_text, self._config.max_positions * models.CHARACTERS_PER_TOKEN
        ends = max((token.end for token in header.source_tokens), default=0)
        if text and (len(text) > most or len(text.encode()) < ends):
            rule = f"must have {most} characters at most, and {ends} bytes for the tokens"
            raise InvalidArgumentError.of(
                "memory.source_text", rule, len(text), reason="BAD_SOURCE_TEXT"
            )

    def _ids(self, text: str | Sequence[int], limit: int, start: int, field: str) -> Sequence[int]:
        """Tokenise a target unless it is hopelessly long; `limit` counts the start tokens too."""
        most, characters = limit - start, limit * models.CHARACTERS_PER_TOKEN
        if most < 0:
            raise self._too_long("max_positions", f"must be at least {start}", limit, limit, start)
        rule = f"must be at most {most} tokens long"
        if isinstance(text, str) and len(text) > characters:
            rule += f", which more than {characters} characters never are"
            raise self._too_long(field, rule, len(text), limit, start + len(text))
        self._check_ids(text, field)
        ids = self._tokenised(text, field) if isinstance(text, str) else text
        if len(ids) > most:
            raise self._too_long(field, rule, len(ids), limit, start + len(ids))
        return ids

    def _tokenised(self, text: str, field: str) -> Sequence[int]:
        try:
            return self._checkpoint.tokenizer.encode_target(text)
        except InvalidArgumentError as error:  # it does not know what the text is to be
            broken = [Violation(f"{field}.text", each.description) for each in error.violations]
            raise InvalidArgumentError.of_all(broken, reason=error.reason) from None

    def _check_ids(self, target: str | Sequence[int], field: str) -> None:
        """TOKEN_OUT_OF_RANGE unless a target is text, ids of the vocabulary, or far too long."""
        if not isinstance(target, str) and len(target) <= self._config.max_positions + 1:
            size = self._config.target_vocabulary_size
            models.check_token_ids(target, size, f"{field}.tokens.ids")

    @staticmethod
    def _too_long(
        field: str, rule: str, value: int, limit: int, length: int
    ) -> InvalidArgumentError:
        numbers = {"limit": str(limit), "length": str(length)}
        return InvalidArgumentError.of(
            field, rule, value, reason="TARGET_TOO_LONG", metadata=numbers
        )


def pieces_of(header: tensor_pb2.MemoryHeader) -> tuple[SourcePiece, ...]:
    """Return the source that a memory's header tells of; empty if it tells of none."""
    return tuple(SourcePiece(token.id, token.begin, token.end) for token in header.source_tokens)


def _bad_source(where: str, rule: str, value: object) -> InvalidArgumentError:
    field = f"memory.source_tokens{where}"
    return InvalidArgumentError.of(field, rule, value, reason="BAD_SOURCE_TOKENS")


def _kind_name(kind: tensor_pb2.MemoryKind.ValueType) -> str:
    known = kind in tensor_pb2.MemoryKind.values()
    return tensor_pb2.MemoryKind.Name(kind) if known else str(kind)
