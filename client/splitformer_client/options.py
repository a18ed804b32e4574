"""How the next token is chosen, as keyword arguments of the generating calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, TypedDict, cast

from splitformer.errors import InvalidArgumentError, shown

Draft = Literal["off", "copy", "jacobi"]
Mode = Literal["loop", "parallel"]
TargetPrefix = str | Sequence[int]
"""What a target begins with: text or token ids."""

Glossary = Mapping[str, str]
"""Source terms, and what each must come out as."""

NO_PREFIXES: Mapping[str, TargetPrefix] = MappingProxyType({})

_DRAWN = ("temperature", "top_k", "top_p", "min_p")

_WITHOUT_GLOSSARY = (*_DRAWN, "logit_bias", "stop", "alternatives", "attention", "alignments")
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
        bad_words: What never comes, each as text or as token ids. A word is ruled out as the
            tokenizer writes it; of several tokens the last one, where the others have come.
        logit_bias: What is added to the logits of token ids, for example {319: -2.5}; not for
            beams.
        num_beams: Beam search that follows this many hypotheses; a stream gives what is certain.
        num_return_sequences: Hypotheses to return in `End`, at most `num_beams`.
        length_penalty: Exponent of the length in a hypothesis' score; left out: 1.
        early_stopping: End a beam search as soon as `num_beams` hypotheses are complete; left out:
            only when no better one can come.
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
    bad_words: Sequence[str | Sequence[int]] | None
    logit_bias: Mapping[int, float] | None
    num_beams: int | None
    num_return_sequences: int | None
    length_penalty: float | None
    early_stopping: bool | None
    glossary: Glossary | Mapping[str, Glossary] | None
    alternatives: int | None
    attention: bool | None
    alignments: bool | None
    draft: Draft | None
    mode: Mode | None
    max_passes: int | None


def options_for(options: GenerationOptions, language: str) -> GenerationOptions:
    """Return the options with the glossary of one language, if they have one for each."""
    glossary = options.get("glossary")
    if glossary is None or not any(isinstance(each, Mapping) for each in glossary.values()):
        return options
    return {**options, "glossary": glossary.get(language)}  # type: ignore[typeddict-item]


def with_seed(options: GenerationOptions, seed: int) -> GenerationOptions:
    """Return options that draw by a seed; the same if they name one, or ask for no draws.

    What takes several generations, a text in pieces say, is repeatable only if all share a seed.
    """
    given: Mapping[str, object] = options
    if given.get("seed") is not None or all(given.get(name) is None for name in _DRAWN):
        return options
    return {**options, "seed": seed}


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
    """InvalidArgumentError if a glossary is for a language that is not asked for, or of no kind.

    A glossary is one mapping, or one for each language; terms beside languages are of no kind.
    """
    glossary = options.get("glossary") or {}
    if not isinstance(glossary, Mapping):
        raise TypeError(f"options.glossary: must be a mapping, got {shown(glossary)}")
    by_language = [key for key, value in glossary.items() if isinstance(value, Mapping)]
    if by_language and len(by_language) < len(glossary):
        rule = "must map terms to terms, or every language to such a mapping"
        raise InvalidArgumentError.of("options.glossary", rule, dict(glossary))
    if unknown := sorted(set(by_language) - set(languages)):
        rule = f"must be for languages that are asked for ({', '.join(languages)})"
        raise InvalidArgumentError.of("options.glossary", rule, unknown)


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
