"""From Python values to the protocol's messages; whatever does not fit into a field is named."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, get_args

from splitformer.errors import InvalidArgumentError, Violation, shown
from splitformer.v1 import decoder_service_pb2 as pb, encoder_service_pb2
from splitformer_client.options import Draft, GenerationOptions, Mode, TargetPrefix

M = TypeVar("M")

_NAMES: dict[str, dict[str, int]] = {
    "draft": {d: pb.DraftMode.Value(f"DRAFT_MODE_{d.upper()}") for d in get_args(Draft)},
    "mode": {m: pb.DecodingMode.Value(f"DECODING_MODE_{m.upper()}") for m in get_args(Mode)},
}
"""Options whose values have names."""

_LISTS = ("stop", "suppressed_tokens", "bad_words")

_ELSEWHERE = {
    "beam_size": "num_beams",
    "best_of": "num_beams",
    "num_hypotheses": "num_return_sequences",
    "n": "num_return_sequences",
    "max_tokens": "max_new_tokens",
    "max_length": "max_new_tokens",
    "max_decoding_length": "max_new_tokens",
    "min_tokens": "min_new_tokens",
    "min_length": "min_new_tokens",
    "min_decoding_length": "min_new_tokens",
    "sampling_temperature": "temperature",
    "sampling_topk": "top_k",
    "sampling_topp": "top_p",
    "stop_strings": "stop",
    "suppress_tokens": "suppressed_tokens",
    "bad_words_ids": "bad_words",
    "sequence_bias": "logit_bias",
    "suppress_sequences": "bad_words",
    "logprobs": "alternatives",
    "num_alternatives": "alternatives",
}
"""What others call an option: Transformers, CTranslate2, vLLM."""


def written(kind: Callable[..., M], where: str = "", **fields: Any) -> M:
    """Make a message.

    Args:
        kind: Its class.
        where: What goes before the names of its fields in errors.
        **fields: What it holds; None leaves a field unset.

    Raises:
        TypeError: A value is of the wrong type.
        InvalidArgumentError: Values do not fit their fields, for example numbers beyond 32 bits.
    """
    try:
        return kind(**fields)
    except (TypeError, ValueError):
        broken = [_violation(kind, where, name, value) for name, value in fields.items()]
        raise InvalidArgumentError.of_all(list(filter(None, broken))) from None


def options_message(options: GenerationOptions) -> pb.GenerationOptions:
    """Write options as the protocol's message.

    Raises:
        TypeError: An option is unknown or has a value of the wrong type.
        InvalidArgumentError: Values do not fit their fields, for example a negative seed. All other
            rules are the server's.
    """
    for name in options:
        if name not in GenerationOptions.__annotations__:
            raise TypeError(_unknown(name))
    fields = {name: _value(name, value) for name, value in options.items() if value is not None}
    return written(pb.GenerationOptions, "options.", **fields)


def prefix_message(
    prefix: TargetPrefix | None, field: str = "target_prefix"
) -> pb.TargetPrefix | None:
    """Write a target, or the beginning of one, as the protocol's message."""
    return None if prefix is None else written(pb.TargetPrefix, f"{field}.", **_form(prefix, field))


def token_ids(ids: Sequence[int], field: str) -> encoder_service_pb2.TokenIds:
    """Write token ids as the protocol's message."""
    if isinstance(ids, bytes | str) or not isinstance(ids, Iterable):
        raise TypeError(f"{field}: must be text or token ids, got {shown(ids)}")
    return written(encoder_service_pb2.TokenIds, f"{field}.tokens.", ids=ids)


def milliseconds(seconds: float, field: str) -> int:
    """Return seconds as the protocol counts them; InvalidArgumentError unless that is possible."""
    if not math.isfinite(seconds):
        raise InvalidArgumentError.of(field, "must be a finite number of seconds", seconds)
    return round(seconds * 1000)


def _unknown(name: str) -> str:
    known = ", ".join(GenerationOptions.__annotations__)
    here = f"; what others call that is {_ELSEWHERE[name]} here" if name in _ELSEWHERE else ""
    return f"{name}: not a generation option{here}; known are {known}"


def _violation(kind: Callable[..., M], where: str, name: str, value: Any) -> Violation | None:
    """Say what is wrong with a field, if it is of the right type; None if nothing is."""
    try:
        kind(**{name: value})
    except UnicodeError:
        rule = "must be text that UTF-8 can hold, which surrogates are not"
    except ValueError:
        rule = "must be within the range of its type"
    except TypeError as error:
        raise TypeError(f"{where}{name}: {error}, got {shown(value)}") from None
    else:
        return None
    return Violation(f"{where}{name}", f"{rule}, got {shown(value)}")


def _value(name: str, value: Any) -> Any:
    """Return an option as its field holds it."""
    if name in _NAMES:
        if not isinstance(value, str) or value not in _NAMES[name]:
            rule = f"must be one of {', '.join(_NAMES[name])}"
            raise InvalidArgumentError.of(f"options.{name}", rule, value)
        return _NAMES[name][value]
    if name == "glossary":
        return _entries(value)
    if name == "logit_bias" and not isinstance(value, Mapping):
        raise TypeError(f"options.{name}: must be a mapping, got {shown(value)}")
    if name in _LISTS:
        return _listed(name, value)
    return value


def _listed(name: str, value: Any) -> list[Any]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise TypeError(f"options.{name}: must be several, got {shown(value)}")
    if name != "bad_words":
        return list(value)
    return [
        written(pb.BadWord, f"{field}.", **_form(word, field))
        for i, word in enumerate(value)
        for field in [f"options.{name}[{i}]"]
    ]


def _form(given: str | Sequence[int], field: str) -> dict[str, Any]:
    """Return what is text or token ids as the fields of a message that holds either."""
    if isinstance(given, str):
        return {"text": given}
    return {"tokens": token_ids(given, field)}


def _entries(glossary: Any) -> list[pb.GlossaryEntry]:
    """Write a glossary; TypeError unless it maps strings to strings."""
    if not isinstance(glossary, Mapping):
        raise TypeError(f"options.glossary: must be a mapping, got {shown(glossary)}")
    for source, target in glossary.items():
        if not (isinstance(source, str) and isinstance(target, str)):
            given = f"{source!r}: {target!r}"
            raise TypeError(f"options.glossary: must map strings to strings, got {given}")
    return [
        written(pb.GlossaryEntry, f"options.glossary[{i}].", source=source, target=target)
        for i, (source, target) in enumerate(glossary.items())
    ]
