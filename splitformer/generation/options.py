"""How the next token is chosen, as one frozen value checked in one place."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from splitformer.errors import InvalidArgumentError, Violation, shown, violations_of_ids
from splitformer.model.defaults import Defaults

MOST_ALTERNATIVES = 100
MOST_ENTRIES = 1000
WIDEST_BEAM = 256
"""A step that follows so many takes as long as some ten usual ones; everybody waits for it."""

GLOSSARY_BEAMS = 4


class DraftMode(enum.Enum):
    """Where guesses for several tokens per step come from."""

    OFF = "off"
    COPY = "copy"
    JACOBI = "jacobi"


class DecodingMode(enum.Enum):
    """How a target comes about."""

    LOOP = "loop"
    PARALLEL = "parallel"


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """Options of one generation; None, or nothing in it, means that the option is off.

    Attributes:
        max_new_tokens: Most tokens to produce; None: as many as there are positions.
        min_new_tokens: Fewest tokens before the end token is allowed.
        temperature: Divides the logits before sampling; 0 is greedy.
        top_k: Sample among the k likeliest tokens.
        top_p: Sample among the likeliest tokens whose probabilities reach p (Holtzman et al. 2020).
        min_p: Sample among tokens at least this fraction as likely as the likeliest.
        seed: Key of the generator; token i depends on (seed, i) only. Sampling needs one.
        repetition_penalty: Divides positive and multiplies negative logits of tokens that the
            decoder's input holds, start tokens included (Keskar et al. 2019).
        no_repeat_ngram_size: No n-gram of this size occurs twice in the decoder's input; 0: off.
        stop: End when the produced text contains one of these; the text is cut before it.
        suppressed_tokens: Ids that are never chosen.
        alternatives: How many of the likeliest other tokens to tell with each token.
        attention: Tell each token's attention over the source.
        alignments: Tell which source positions each token aligns with.
        num_beams: Hypotheses that beam search follows side by side; 1 is no beam search.
        num_return_sequences: Hypotheses to return, best first.
        length_penalty: A hypothesis' score is the sum of its log-probabilities divided by its
            length to this power; above 0 long ones gain. None: 1.
        glossary: Source terms and what each must come out as; those that are not in the source do
            nothing. It takes beam search, with four beams at least.
        draft: Where guesses come from; None: the server decides. The output is the same.
        mode: One token after the other, or all at once, refined pass by pass.
        max_passes: Passes over one block of tokens in parallel decoding, after which it counts as
            it is; None: until it does not change any more, which gives what the loop gives.

    Raises:
        InvalidArgumentError: BAD_OPTION; names every `options.<field>` that breaks its rule.
    """

    max_new_tokens: int | None = None
    min_new_tokens: int = 0
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    stop: tuple[str, ...] = ()
    suppressed_tokens: tuple[int, ...] = ()
    alternatives: int = 0
    attention: bool = False
    alignments: bool = False
    num_beams: int | None = None
    num_return_sequences: int | None = None
    length_penalty: float | None = None
    glossary: tuple[tuple[str, str], ...] = ()
    draft: DraftMode | None = None
    mode: DecodingMode = DecodingMode.LOOP
    max_passes: int | None = None

    def __post_init__(self) -> None:
        broken = [
            violation(f"options.{name}", rule, value)
            for name, rule, holds in _RULES
            if (value := getattr(self, name)) is not None and not holds(value)
        ]
        if self.max_new_tokens is not None and 1 <= self.max_new_tokens < self.min_new_tokens:
            rule = f"must be at most max_new_tokens ({self.max_new_tokens})"
            broken.append(violation("options.min_new_tokens", rule, self.min_new_tokens))
        refuse([*broken, *self._contradictions(), *self._against_the_mode()])

    def check(
        self,
        vocabulary_size: int,
        forced_token: int | None = None,
        field: str = "forced_token",
        stepwise: bool = False,
    ) -> None:
        """Raise InvalidArgumentError BAD_OPTION if this cannot be asked of a model or a call.

        Args:
            vocabulary_size: V; ids must be below it.
            forced_token: One more id.
            field: Of the request, which holds that one.
            stepwise: Tokens are asked for one by one, so there must be a single next one.
        """
        ids = self.suppressed_tokens
        broken, more = violations_of_ids(ids, vocabulary_size, "options.suppressed_tokens")
        if forced_token is not None and not 0 <= forced_token < vocabulary_size:
            rule = f"must be at least 0 and below {vocabulary_size}"
            broken.insert(0, violation(field, rule, forced_token))
        refuse([*(self._against_steps() if stepwise else ()), *broken], more)

    def _against_steps(self) -> list[Violation]:
        """Name options under which there is no single next token."""
        where, broken = "where tokens are asked for one by one", list[Violation]()
        if (self.num_beams or 1) > 1:
            rule = f"must be 1 or unset {where}"
            broken.append(violation("options.num_beams", rule, self.num_beams))
        if self.glossary:
            rule = f"must be empty {where}"
            broken.append(violation("options.glossary", rule, dict(self.glossary)))
        return broken

    @property
    def beams(self) -> int:
        """How many hypotheses are followed side by side."""
        return max(self.num_beams or 1, GLOSSARY_BEAMS if self.glossary else 1)

    def without_glossary(self) -> GenerationOptions:
        """Return what is meant where the source contains no term of the glossary."""
        if not self.glossary:
            return self
        searched = (self.num_return_sequences or 1) > 1 or self.length_penalty is not None
        beams = self.num_beams or (self.beams if searched else None)
        return dataclasses.replace(self, glossary=(), num_beams=beams)

    def under(self, defaults: Defaults) -> GenerationOptions:
        """Return the options with a model's defaults for what they leave open.

        Parallel decoding, which has no filters, has none of them.
        """
        if self.mode is DecodingMode.PARALLEL:
            return self
        left = {name: each for name, each in defaults.set.items() if getattr(self, name) is None}
        return dataclasses.replace(self, **left) if left else self  # type: ignore[arg-type]

    @property
    def penalty(self) -> float:
        """The length penalty."""
        return 1.0 if self.length_penalty is None else self.length_penalty

    @property
    def sampled(self) -> bool:
        """True if tokens are drawn, False if the likeliest is taken."""
        if self.temperature is not None:
            return self.temperature > 0
        return any(value is not None for value in (self.top_k, self.top_p, self.min_p))

    @property
    def inspected(self) -> bool:
        """True if more than the tokens themselves is to be told."""
        return bool(self.alternatives or self.attention or self.alignments)

    @property
    def plain(self) -> bool:
        """True if the likeliest of the allowed tokens is taken as the model has it."""
        return not (self.sampled or self.penalises)

    @property
    def penalises(self) -> bool:
        """True if tokens that were said become less likely, or more."""
        return self.repetition_penalty not in (None, 1.0)

    @property
    def reshaped(self) -> bool:
        """True if what was said matters for what is likely next, beyond what the model has."""
        return self.penalises or self.unrepeated > 0

    @property
    def bans(self) -> bool:
        """True if tokens may be ruled out, the end token aside."""
        return self.unrepeated > 0 or bool(self.suppressed_tokens)

    @property
    def unrepeated(self) -> int:
        """Size of the n-grams that may occur once only; 0: any may."""
        return self.no_repeat_ngram_size or 0

    @property
    def guessed(self) -> str | None:
        """Where guesses are to come from; None where that is left to the server, or off."""
        return None if self.draft in (None, DraftMode.OFF) else self.draft.value

    def _contradictions(self) -> list[Violation]:
        """Name options that make no sense beside the others."""
        broken = self._bad_entries()
        if self.beams > 1:
            searched = f"num_beams above 1 ({self.num_beams})"
            rule = f"must not be set with {'a glossary' if self.glossary else searched}"
            drawn = _DRAWN if self.sampled else ()
            told = [n for n in ("alternatives", "attention", "alignments") if getattr(self, n)]
            given = [(name, getattr(self, name)) for name in (*drawn, *told)]
            given.append(("draft", self.guessed))
            given.append(("stop", list(self.stop) if self.stop and self.glossary else None))
            broken += [violation(f"options.{n}", rule, v) for n, v in given if v is not None]
        if (self.num_return_sequences or 1) > self.beams:
            rule = f"must be at most num_beams ({self.beams})"
            broken.append(
                violation("options.num_return_sequences", rule, self.num_return_sequences)
            )
        if self.length_penalty is not None and self.beams == 1:
            rule = "must be set with num_beams above 1 only"
            broken.append(violation("options.length_penalty", rule, self.length_penalty))
        return broken

    def _bad_entries(self) -> list[Violation]:
        """Name what is wrong with entries of the glossary."""
        if len(self.glossary) > MOST_ENTRIES:
            rule = f"must hold at most {MOST_ENTRIES} entries"
            return [violation("options.glossary", rule, len(self.glossary))]
        broken, known = list[Violation](), dict[str, int]()
        for i, (source, target) in enumerate(self.glossary):
            where, rule = f"options.glossary[{i}]", "must hold more than white space"
            for name, text in (("source", source), ("target", target)):
                broken += [] if text.strip() else [violation(f"{where}.{name}", rule, text)]
            if (first := known.setdefault(source, i)) != i:
                rule = f"must be given once, and entry {first} has it"
                broken.append(violation(f"{where}.source", rule, source))
        return broken

    def _against_the_mode(self) -> list[Violation]:
        """Name options that only make sense in the other mode."""
        if self.mode is DecodingMode.LOOP:
            wrong: tuple[tuple[str, Any], ...] = (("max_passes", self.max_passes),)
            rule = "must be unset unless the mode is parallel"
        else:
            wrong = (
                *((name, getattr(self, name)) for name in _DRAWN if self.sampled),
                ("repetition_penalty", self.repetition_penalty),
                ("no_repeat_ngram_size", self.unrepeated or None),
                ("suppressed_tokens", self.suppressed_tokens or None),
                ("num_beams", self.num_beams if (self.num_beams or 1) > 1 else None),
                ("glossary", dict(self.glossary) or None),
                ("draft", self.guessed),
            )
            rule = "must be unset where the mode is parallel"
        return [violation(f"options.{n}", rule, value) for n, value in wrong if value is not None]


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
    (
        "alternatives",
        f"must be 0 to {MOST_ALTERNATIVES}",
        lambda v: 0 <= v <= MOST_ALTERNATIVES,
    ),
    ("max_passes", "must be at least 1", lambda v: v >= 1),
)

_DRAWN = ("temperature", "top_k", "top_p", "min_p")


def violation(field: str, rule: str, value: object) -> Violation:
    """Say that a field breaks its rule."""
    return Violation(field, f"{rule}, got {shown(value)}")


def refuse(broken: list[Violation], more: int = 0) -> None:
    """Raise one InvalidArgumentError BAD_OPTION that names all violations, if there are any."""
    if broken:
        raise InvalidArgumentError.of_all(broken, reason="BAD_OPTION", more=more)
