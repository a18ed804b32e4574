"""How the next token is chosen, as keyword arguments of the generating calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, TypedDict, cast, get_args

from splitformer.errors import InvalidArgumentError
from splitformer.v1 import decoder_service_pb2 as pb, encoder_service_pb2

Draft = Literal["off", "copy", "jacobi"]
Mode = Literal["loop", "parallel"]
TargetPrefix = str | Sequence[int]
"""What a target begins with: text or token ids."""

Glossary = Mapping[str, str]
"""Source terms, and what each must come out as."""

NO_PREFIXES: Mapping[str, TargetPrefix] = MappingProxyType({})

_NAMES: dict[str, dict[object, int]] = {
    "draft": {d: pb.DraftMode.Value(f"DRAFT_MODE_{d.upper()}") for d in get_args(Draft)},
    "mode": {m: pb.DecodingMode.Value(f"DECODING_MODE_{m.upper()}") for m in get_args(Mode)},
}
"""Options whose values have names."""

_WITHOUT_GLOSSARY = (
    *("temperature", "top_k", "top_p", "min_p", "stop"),
    *("alternatives", "attention", "alignments"),
)
"""Options that cannot be combined with a glossary, beside parallel decoding."""

_UNREPEATED = 3
"""Tokens in a row that come once only where loops are broken: any loop of four turns is longer."""


class GenerationOptions(TypedDict, total=False):
    """Options of `translate`, `stream`, `Session.generate` and `Session.step`.

    An option that is left out or None is off, unless the model has a default for it, which
    `decoder_info().generation_defaults` tells. Without any, decoding is greedy.

    Attributes:
        max_new_tokens: Most tokens to generate.
        min_new_tokens: Fewest tokens before the end token is allowed.
        temperature: Divides the logits before sampling; 0 is greedy.
        top_k: Sample among the k likeliest tokens.
        top_p: Sample among the likeliest tokens whose probabilities sum to p.
        min_p: Sample among tokens at least this fraction as likely as the likeliest.
        seed: Token i depends on (seed, i) only; left out: drawn by the server, returned in `End`.
        repetition_penalty: Divides positive, multiplies negative logits of tokens that occurred;
            1: off.
        no_repeat_ngram_size: No n-gram of this size occurs twice; 0: off.
        stop: End when the text contains one of these.
        suppressed_tokens: Never choose these ids.
        num_beams: Beam search that follows this many hypotheses; a stream gives what is certain.
        num_return_sequences: Hypotheses to return in `End`, at most `num_beams`.
        length_penalty: Exponent of the length in a hypothesis' score; left out: 1.
        glossary: What source terms must come out as: {"file": "Datei"}; one that stays as it is
            comes as often as in the source, and no more often. It takes beam search. Where
            several languages are asked for it holds for all, unless it is a mapping of mappings, by
            language.
        alternatives: Likeliest other tokens to report with each token.
        attention: Report each token's attention over the source.
        alignments: Report which source positions each token aligns with.
        draft: Where guesses for several tokens per step come from: "off", "copy" (from the source
            and the output) or "jacobi"; left out: the server decides. The output is the same.
        mode: "loop", or "parallel": all tokens at once, refined pass by pass.
        max_passes: Passes of parallel decoding over one block of tokens, after which it counts as
            it is; left out: until it is what the loop gives.
    """

    max_new_tokens: int | None
    min_new_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    seed: int | None
    repetition_penalty: float | None
    no_repeat_ngram_size: int | None
    stop: Sequence[str] | None
    suppressed_tokens: Sequence[int] | None
    num_beams: int | None
    num_return_sequences: int | None
    length_penalty: float | None
    glossary: Glossary | Mapping[str, Glossary] | None
    alternatives: int | None
    attention: bool | None
    alignments: bool | None
    draft: Draft | None
    mode: Mode | None
    max_passes: int | None


def options_message(options: GenerationOptions) -> pb.GenerationOptions:
    """Write options as the protocol's message.

    Raises:
        TypeError: An option is unknown or has a value of the wrong type.
        InvalidArgumentError: A value does not fit its field, for example a negative seed. All other
            rules are the server's.
    """
    message = pb.GenerationOptions()
    for name, value in options.items():
        if name not in GenerationOptions.__annotations__:
            known = ", ".join(GenerationOptions.__annotations__)
            raise TypeError(f"{name}: not a generation option; known are {known}")
        if value is not None:
            _set(message, name, value)
    return message


def options_for(options: GenerationOptions, language: str) -> GenerationOptions:
    """Return the options with the glossary of one language, if they have one for each."""
    glossary = options.get("glossary")
    if glossary is None or not any(isinstance(each, Mapping) for each in glossary.values()):
        return options
    return {**options, "glossary": glossary.get(language)}  # type: ignore[typeddict-item]


def with_terms(options: GenerationOptions, terms: Iterable[str]) -> GenerationOptions:
    """Return options under which terms must come out as they are, besides those of their glossary.

    They are the same if they are of a kind that no glossary goes with.

    Args:
        options: With the glossary of one language, or none.
        terms: Parts of the source.
    """
    given: Mapping[str, object] = options
    if given.get("mode") == "parallel" or any(given.get(name) for name in _WITHOUT_GLOSSARY):
        return options
    kept, own = options.copy(), cast(Glossary, options.get("glossary") or {})
    kept["glossary"], kept["draft"] = {**{term: term for term in terms}, **own}, None
    return kept


def without_repeats(options: GenerationOptions) -> GenerationOptions:
    """Return options under which nothing is said over and over.

    They are the same if they say how often something may be said, or cannot.
    """
    given: Mapping[str, object] = options
    told = [given.get(name) is not None for name in ("no_repeat_ngram_size", "repetition_penalty")]
    if any(told) or given.get("mode") == "parallel":
        return options
    stricter = options.copy()
    stricter["no_repeat_ngram_size"] = _UNREPEATED
    return stricter


def check_glossary(options: GenerationOptions, languages: Sequence[str]) -> None:
    """InvalidArgumentError if there is a glossary for a language that is not asked for."""
    glossary = options.get("glossary") or {}
    by_language = [key for key, value in glossary.items() if isinstance(value, Mapping)]
    if unknown := sorted(set(by_language) - set(languages)):
        rule = f"must be for languages that are asked for ({', '.join(languages)})"
        raise InvalidArgumentError.of("options.glossary", rule, unknown)


def prefix_message(prefix: TargetPrefix | None) -> pb.TargetPrefix | None:
    """Write a target, or the beginning of one, as the protocol's message."""
    if prefix is None:
        return None
    if isinstance(prefix, str):
        return pb.TargetPrefix(text=prefix)
    return pb.TargetPrefix(tokens=encoder_service_pb2.TokenIds(ids=prefix))


def prefixes_of(
    prefix: TargetPrefix | Mapping[str, TargetPrefix] | None, languages: Sequence[str]
) -> Mapping[str, TargetPrefix]:
    """Return what the target in each language begins with, as far as that is asked for.

    Raises:
        InvalidArgumentError: One for several languages, or for one that is not asked for.
    """
    if prefix is None:
        return NO_PREFIXES
    if not isinstance(prefix, Mapping):
        if len(languages) == 1:
            return {languages[0]: prefix}
        rule = "must be a mapping from language to prefix where there are several languages"
        raise InvalidArgumentError.of("target_prefix", rule, prefix)
    if unknown := sorted(set(prefix) - set(languages)):
        rule = f"must be for languages that are asked for ({', '.join(languages)})"
        raise InvalidArgumentError.of("target_prefix", rule, unknown)
    return prefix


def _set(message: pb.GenerationOptions, name: str, value: object) -> None:
    """Set one field, naming it if the value does not fit."""
    if name in _NAMES:
        known = _NAMES[name]
        if value not in known:
            rule = f"must be one of {', '.join(map(str, known))}"
            raise InvalidArgumentError.of(f"options.{name}", rule, value)
        value = known[value]
    if isinstance(value, Mapping):
        value = _entries(name, value)
    if isinstance(value, str):
        raise TypeError(f"{name}: must not be a plain string, got {value!r}")
    try:
        if isinstance(value, Sequence):
            getattr(message, name).extend(value)
        else:
            setattr(message, name, value)
    except ValueError as error:
        raise InvalidArgumentError.of(f"options.{name}", str(error), value) from None
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None


def _entries(name: str, glossary: Mapping[object, object]) -> list[pb.GlossaryEntry]:
    """Write a glossary; TypeError unless it maps strings to strings."""
    for source, target in glossary.items():
        if not (isinstance(source, str) and isinstance(target, str)):
            raise TypeError(f"{name}: must map strings to strings, got {source!r}: {target!r}")
    return [pb.GlossaryEntry(source=str(s), target=str(t)) for s, t in glossary.items()]
