"""What contradicts what in options, and which values they may have: all of it in one place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from splitformer.errors import InvalidArgumentError, Violation, shown

if TYPE_CHECKING:
    from splitformer.generation.options import GenerationOptions

MOST_ALTERNATIVES = 100
MOST_ENTRIES = 1000
LONGEST_TERM = 1000
"""Characters; the tokenizer goes through terms and words while everybody waits."""

MOST_STOPS = 256
"""Each is looked for behind every token, while everybody waits."""

WIDEST_BEAM = 256
"""A step that follows so many takes as long as some ten usual ones; everybody waits for it."""

_RULES: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    ("max_new_tokens", "must be at least 1", lambda v: v >= 1),
    ("min_new_tokens", "must be at least 0", lambda v: v >= 0),
    (
        "temperature",
        "must be a finite number of at least 0",
        lambda v: math.isfinite(v) and v >= 0,
    ),
    ("top_k", "must be at least 1", lambda v: v >= 1),
    ("top_p", "must be above 0 and at most 1", lambda v: 0 < v <= 1),
    ("min_p", "must be at least 0 and at most 1", lambda v: 0 <= v <= 1),
    ("seed", "must be below 2**64", lambda v: 0 <= v < 2**64),
    (
        "repetition_penalty",
        "must be a finite number above 0",
        lambda v: math.isfinite(v) and v > 0,
    ),
    ("no_repeat_ngram_size", "must be at least 0", lambda v: v >= 0),
    ("num_beams", f"must be 1 to {WIDEST_BEAM}", lambda v: 1 <= v <= WIDEST_BEAM),
    ("num_return_sequences", "must be at least 1", lambda v: v >= 1),
    ("length_penalty", "must be at least -10 and at most 10", lambda v: -10 <= v <= 10),
    ("stop", "must hold no empty string", lambda v: "" not in v),
    ("stop", f"must hold at most {MOST_STOPS} strings", lambda v: len(v) <= MOST_STOPS),
    (
        "alternatives",
        f"must be 0 to {MOST_ALTERNATIVES}",
        lambda v: 0 <= v <= MOST_ALTERNATIVES,
    ),
    ("max_passes", "must be at least 1", lambda v: v >= 1),
    (
        "logit_bias",
        f"must hold at most {MOST_ENTRIES} finite numbers",
        lambda v: len(v) <= MOST_ENTRIES and all(math.isfinite(bias) for _, bias in v),
    ),
)

_DRAWN = ("temperature", "top_k", "top_p", "min_p")
_TOLD = ("alternatives", "attention", "alignments")


def contradictions(options: GenerationOptions) -> list[Violation]:
    """Name every `options.<field>` that breaks its rule or goes with no other value."""
    broken = [
        violation(f"options.{name}", rule, value)
        for name, rule, holds in _RULES
        if (value := getattr(options, name)) is not None and not holds(value)
    ]
    most = options.max_new_tokens
    if most is not None and 1 <= most < options.min_new_tokens:
        rule = f"must be at most max_new_tokens ({most})"
        broken.append(violation("options.min_new_tokens", rule, options.min_new_tokens))
    return [*broken, *_against_each_other(options), *_against_the_mode(options)]


def violation(field: str, rule: str, value: object) -> Violation:
    """Say that a field breaks its rule."""
    return Violation(field, f"{rule}, got {shown(value)}")


def refuse(broken: list[Violation], more: int = 0) -> None:
    """Raise one InvalidArgumentError BAD_OPTION that names all violations, if there are any."""
    if broken:
        raise InvalidArgumentError.of_all(broken, reason="BAD_OPTION", more=more)


def _against_each_other(options: GenerationOptions) -> list[Violation]:
    """Name options that make no sense beside the others."""
    broken = _bad_entries(options)
    if options.beams > 1:
        searched = f"num_beams above 1 ({options.num_beams})"
        rule = f"must not be set with {'a glossary' if options.glossary else searched}"
        drawn = _DRAWN if options.sampled else ()
        told = [n for n in _TOLD if getattr(options, n)]
        given = [(name, getattr(options, name)) for name in (*drawn, *told)]
        given.append(("draft", options.guessed))
        given.append(("logit_bias", dict(options.logit_bias) or None))
        given.append(("stop", list(options.stop) if options.stop and options.glossary else None))
        broken += [violation(f"options.{n}", rule, v) for n, v in given if v is not None]
    if (options.num_return_sequences or 1) > options.beams:
        rule = f"must be at most num_beams ({options.beams})"
        broken.append(violation("options.num_return_sequences", rule, options.num_return_sequences))
    rule = "must be set with num_beams above 1 only"
    broken += [
        violation(f"options.{name}", rule, value)
        for name in ("length_penalty", "early_stopping")
        if (value := getattr(options, name)) is not None and options.beams == 1
    ]
    return [*broken, *_bad_words(options)]


def _bad_words(options: GenerationOptions) -> list[Violation]:
    """Name what is wrong with words that may not come."""
    if len(options.bad_words) > MOST_ENTRIES:
        rule = f"must hold at most {MOST_ENTRIES} words"
        return [violation("options.bad_words", rule, len(options.bad_words))]
    return [
        violation(f"options.bad_words[{i}]", rule, word)
        for i, word in enumerate(options.bad_words)
        if (rule := _unusable(word))
    ]


def _unusable(word: str | Sequence[int]) -> str:
    """Return the rule that a term or a bad word breaks; empty if none."""
    if len(word) > LONGEST_TERM:
        return f"must be at most {LONGEST_TERM} characters or ids long"
    held = word.strip() if isinstance(word, str) else word
    return "" if held else "must hold more than white space"


def _bad_entries(options: GenerationOptions) -> list[Violation]:
    """Name what is wrong with entries of the glossary."""
    if len(options.glossary) > MOST_ENTRIES:
        rule = f"must hold at most {MOST_ENTRIES} entries"
        return [violation("options.glossary", rule, len(options.glossary))]
    broken, known = list[Violation](), dict[str, int]()
    for i, (source, target) in enumerate(options.glossary):
        where = f"options.glossary[{i}]"
        for name, text in (("source", source), ("target", target)):
            if rule := _unusable(text):
                broken.append(violation(f"{where}.{name}", rule, text))
        if (first := known.setdefault(source, i)) != i:
            rule = f"must be given once, and entry {first} has it"
            broken.append(violation(f"{where}.source", rule, source))
    return broken


def _against_the_mode(options: GenerationOptions) -> list[Violation]:
    """Name options that only make sense in the other mode."""
    if options.mode.value == "loop":
        wrong: tuple[tuple[str, Any], ...] = (("max_passes", options.max_passes),)
        rule = "must be unset unless the mode is parallel"
    else:
        wrong = (
            *((name, getattr(options, name)) for name in _DRAWN if options.sampled),
            ("repetition_penalty", options.repetition_penalty),
            ("no_repeat_ngram_size", options.unrepeated or None),
            ("suppressed_tokens", options.suppressed_tokens or None),
            ("bad_words", options.bad_words or None),
            ("logit_bias", dict(options.logit_bias) or None),
            ("num_beams", options.num_beams if (options.num_beams or 1) > 1 else None),
            ("glossary", dict(options.glossary) or None),
            ("draft", options.guessed),
        )
        rule = "must be unset where the mode is parallel"
    return [violation(f"options.{n}", rule, value) for n, value in wrong if value is not None]
