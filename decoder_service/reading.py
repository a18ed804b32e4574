"""From protobuf requests to the decoder service's own values."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from functools import lru_cache
from typing import Any, Literal, TypeVar

from google.protobuf.unknown_fields import UnknownFieldSet

from decoder_service.opening import Branch, SpeechWish, Wish
from decoder_service.steers import Finish, Force, Redirect, Rewind, Start, Steer, bad_action
from splitformer.errors import InvalidArgumentError, UnimplementedError, Violation, check_all
from splitformer.generation import (
    DecodingMode,
    DraftMode,
    GenerationOptions,
)
from splitformer.model.speech import TRANSCRIBE
from splitformer.serving.models import TASKS
from splitformer.v1 import decoder_service_pb2 as pb, model_pb2

V = TypeVar("V")
OptionalField = Literal[
    "max_new_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "seed",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "num_beams",
    "num_return_sequences",
    "length_penalty",
    "early_stopping",
    "max_passes",
]
_LONG_OPTIONS = 1024
"""Bytes; options beyond that, glossaries say, are not kept for the next call."""

_DRAFTS = {
    pb.DRAFT_MODE_UNSPECIFIED: None,
    pb.DRAFT_MODE_OFF: DraftMode.OFF,
    pb.DRAFT_MODE_COPY: DraftMode.COPY,
    pb.DRAFT_MODE_JACOBI: DraftMode.JACOBI,
}
_MODES = {
    pb.DECODING_MODE_UNSPECIFIED: DecodingMode.LOOP,
    pb.DECODING_MODE_LOOP: DecodingMode.LOOP,
    pb.DECODING_MODE_PARALLEL: DecodingMode.PARALLEL,
}

_TASKS = {model_pb2.SPEECH_TASK_UNSPECIFIED: TRANSCRIBE}
_TASKS |= {number: task for task, number in TASKS.items()}


def options_of(message: pb.GenerationOptions) -> GenerationOptions:
    """Read the options of a call; most calls ask for what others have asked for before.

    Raises:
        UnimplementedError: OPTION_NOT_OFFERED, a field of a later protocol: no wish is
            silently ignored.
        InvalidArgumentError: BAD_OPTION.
    """
    if message.ByteSize() > _LONG_OPTIONS:
        return _read_options(message)
    return _known_options(message.SerializeToString())


@lru_cache(256)
def _known_options(data: bytes) -> GenerationOptions:
    return _read_options(pb.GenerationOptions.FromString(data))


def _read_options(message: pb.GenerationOptions) -> GenerationOptions:
    if len(unknown := UnknownFieldSet(message)):
        raise _not_offered(unknown)
    options: GenerationOptions
    options, _, _ = check_all(
        lambda: _options_of_known(message),
        lambda: _known("options.draft", _DRAFTS, message.draft),
        lambda: _known("options.mode", _MODES, message.mode),
    )
    return options


def _options_of_known(message: pb.GenerationOptions) -> GenerationOptions:
    """Read options; values that an enum of the protocol does not have are taken for unset."""
    return GenerationOptions(
        max_new_tokens=_optional(message, "max_new_tokens"),
        min_new_tokens=message.min_new_tokens,
        temperature=_optional(message, "temperature"),
        top_k=_optional(message, "top_k"),
        top_p=_optional(message, "top_p"),
        min_p=_optional(message, "min_p"),
        seed=_optional(message, "seed"),
        repetition_penalty=_optional(message, "repetition_penalty"),
        no_repeat_ngram_size=_optional(message, "no_repeat_ngram_size"),
        stop=tuple(message.stop),
        suppressed_tokens=tuple(message.suppressed_tokens),
        bad_words=tuple(map(_text_or_ids, message.bad_words)),
        logit_bias=tuple(sorted(message.logit_bias.items())),
        alternatives=message.alternatives,
        attention=message.attention,
        alignments=message.alignments,
        num_beams=_optional(message, "num_beams"),
        num_return_sequences=_optional(message, "num_return_sequences"),
        length_penalty=_optional(message, "length_penalty"),
        early_stopping=_optional(message, "early_stopping"),
        glossary=tuple((entry.source, entry.target) for entry in message.glossary),
        draft=_DRAFTS.get(message.draft),
        mode=_MODES.get(message.mode, DecodingMode.LOOP),
        max_passes=_optional(message, "max_passes"),
    )


def _optional(message: pb.GenerationOptions, name: OptionalField) -> Any:
    return getattr(message, name) if message.HasField(name) else None


def _known(field: str, values: Mapping[Any, V], value: int) -> V:
    """Read an enum; InvalidArgumentError BAD_OPTION if the protocol has no such value."""
    if value not in values:
        raise InvalidArgumentError.of(
            field, "must be a value of the protocol", value, reason="BAD_OPTION"
        )
    return values[value]


def _not_offered(unknown: UnknownFieldSet) -> UnimplementedError:
    numbers = [unknown[at].field_number for at in range(len(unknown))]
    rules = [f"must be a field that this version knows, got number {each}" for each in numbers]
    return UnimplementedError(
        "; ".join(f"options: {rule}" for rule in rules),
        reason="OPTION_NOT_OFFERED",
        violations=tuple(Violation("options", rule) for rule in rules),
    )


def wish_of(header: pb.SessionHeader) -> Wish:
    """Read what a session's opener asks for."""
    return Wish(
        language=header.target_language,
        prefix=_text_or_ids(header.target_prefix),
        max_positions=header.max_positions,
        speech=_speech_of(header.speech) if header.HasField("speech") else None,
    )


def _speech_of(options: pb.SpeechOptions) -> SpeechWish:
    if options.task not in _TASKS:
        raise InvalidArgumentError.of(
            "speech.task", "must be a SpeechTask", options.task, reason="BAD_OPTION"
        )
    return SpeechWish(_TASKS[options.task], options.timestamps)


def check_one_shot(header: pb.SessionHeader) -> None:
    """InvalidArgumentError BAD_OPTION if a one-shot asks for what only sessions have."""
    if header.request_id:
        raise InvalidArgumentError.of(
            "header.session.request_id",
            "must be empty: a one-shot leaves no session to find again",
            header.request_id,
            reason="BAD_OPTION",
        )


def branch_of(request: pb.ForkSessionRequest) -> Branch:
    """Read what a fork keeps."""
    kept = request.keep_tokens if request.HasField("keep_tokens") else None
    return Branch(request.target_language, kept)


def step_index(request: pb.StepRequest) -> int:
    """Read the index of a step; it is required.

    Raises:
        InvalidArgumentError: BAD_STEP_INDEX.
    """
    if not request.HasField("index") or request.index < 0:
        value = request.index if request.HasField("index") else None
        raise InvalidArgumentError.of(
            "index", "must be given and at least 0", value, reason="BAD_STEP_INDEX"
        )
    return request.index


def given_target(request: pb.ScoreRequest) -> str | tuple[int, ...]:
    """Read what is to be scored."""
    return _text_or_ids(request.target)


def _text_or_ids(given: pb.TargetPrefix | pb.BadWord) -> str | tuple[int, ...]:
    return given.text if given.WhichOneof("form") == "text" else tuple(given.tokens.ids)


async def steers_of(requests: AsyncIterator[pb.InteractRequest]) -> AsyncIterator[Steer]:
    """Read requests as they come.

    Raises:
        UnimplementedError: OPTION_NOT_OFFERED.
        InvalidArgumentError: BAD_ACTION or BAD_OPTION.
    """
    async for request in requests:
        yield Steer(_action_of(request), request.hold)


def _action_of(request: pb.InteractRequest) -> Start | Force | Rewind | Redirect | Finish:
    action = request.WhichOneof("action")
    if action == "start":
        start = request.start
        return Start(
            start.session_id,
            options_of(start.options),
            start.start_index if start.HasField("start_index") else None,
            tokens_per_message(start.max_tokens_per_message),
            start.close_on_end,
        )
    if action == "force":
        force = request.force
        return Force(force.token, force.index if force.HasField("index") else None)
    if action == "rewind":
        return Rewind(request.rewind.index)
    if action == "redirect":
        return Redirect(options_of(request.redirect))
    if action is None:
        raise bad_action("action", "must be one that the protocol has")
    return Finish()


def tokens_per_message(requested: int) -> int:
    """Return how many tokens a message may hold; InvalidArgumentError BAD_OPTION."""
    if requested < 0:
        raise InvalidArgumentError.of(
            "max_tokens_per_message", "must be at least 0", requested, reason="BAD_OPTION"
        )
    return requested or 1
