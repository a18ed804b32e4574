"""How the next token is chosen, as one frozen value checked in one place."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass

from splitformer.errors import Violation, violations_of_ids
from splitformer.generation.contradictions import contradictions, refuse, violation
from splitformer.model.defaults import Defaults

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
        bad_words: What never comes, each as text or as token ids; `Glossary.spelled` says which
            `suppressed_tokens` and `suppressed_sequences` they are to a model.
        suppressed_sequences: Sequences of two ids or more that never come.
        logit_bias: What is added to the logits of some ids before all filters.
        alternatives: How many of the likeliest other tokens to tell with each token.
        attention: Tell each token's attention over the source.
        alignments: Tell which source positions each token aligns with.
        num_beams: Hypotheses that beam search follows side by side; 1 is no beam search.
        num_return_sequences: Hypotheses to return, best first.
        length_penalty: A hypothesis' score is the sum of its log-probabilities divided by its
            length to this power; above 0 long ones gain. None: 1.
        early_stopping: A search is over as soon as `num_beams` hypotheses are complete, and not
            only when no better one can come.
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
    bad_words: tuple[str | tuple[int, ...], ...] = ()
    suppressed_sequences: tuple[tuple[int, ...], ...] = ()
    logit_bias: tuple[tuple[int, float], ...] = ()
    alternatives: int = 0
    attention: bool = False
    alignments: bool = False
    num_beams: int | None = None
    num_return_sequences: int | None = None
    length_penalty: float | None = None
    early_stopping: bool | None = None
    glossary: tuple[tuple[str, str], ...] = ()
    draft: DraftMode | None = None
    mode: DecodingMode = DecodingMode.LOOP
    max_passes: int | None = None

    def __post_init__(self) -> None:
        refuse(contradictions(self))

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
        if len(ids) > vocabulary_size:
            rule = f"must hold at most {vocabulary_size} ids, as many as there are"
            broken, more = [violation("options.suppressed_tokens", rule, len(ids))], 0
        rule = f"must be at least 0 and below {vocabulary_size}"
        broken += [
            violation(f"options.logit_bias[{token}]", rule, token)
            for token, _ in self.logit_bias
            if not 0 <= token < vocabulary_size
        ]
        for i, word in enumerate(self.bad_words):
            if not isinstance(word, str):
                field = f"options.bad_words[{i}].tokens.ids"
                broken += violations_of_ids(word, vocabulary_size, field)[0]
        if forced_token is not None and not 0 <= forced_token < vocabulary_size:
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
        told = (self.length_penalty, self.early_stopping)
        searched = (self.num_return_sequences or 1) > 1 or told != (None, None)
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
        return not (self.sampled or self.penalises or self.logit_bias)

    @property
    def penalises(self) -> bool:
        """True if tokens that were said become less likely, or more."""
        return self.repetition_penalty not in (None, 1.0)

    @property
    def reshaped(self) -> bool:
        """True if what was said matters for what is likely next, beyond what the model has."""
        return self.penalises or self.unrepeated > 0 or bool(self.suppressed_sequences)

    @property
    def bans(self) -> bool:
        """True if tokens may be ruled out, the end token aside."""
        return self.unrepeated > 0 or bool(self.suppressed_tokens or self.suppressed_sequences)

    @property
    def unrepeated(self) -> int:
        """Size of the n-grams that may occur once only; 0: any may."""
        return self.no_repeat_ngram_size or 0

    @property
    def guessed(self) -> str | None:
        """Where guesses are to come from; None where that is left to the server, or off."""
        return None if self.draft in (None, DraftMode.OFF) else self.draft.value
