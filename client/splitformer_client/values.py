"""What callers get: frozen values that know nothing of gRPC and protobuf.

Times are in seconds, probabilities are natural logarithms.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from splitformer_client.alignment import Alignment, align_words
from splitformer_client.placeholders import astray
from splitformer_client.spans import Span


class EndReason(enum.StrEnum):
    """Why a generation ended."""

    UNSPECIFIED = "unspecified"
    EOS = "eos"
    LENGTH = "length"
    STOP = "stop"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token that was not chosen.

    Attributes:
        id: Its id in the target vocabulary.
        text: Its text.
        log_probability: Natural logarithm of its probability.
    """

    id: int
    text: str
    log_probability: float


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a target.

    Attributes:
        index: Position in the target, from 0; tokens of a target prefix are not counted.
        id: Its id in the target vocabulary.
        text: The text that became certain with it; the pieces joined are the whole text.
        log_probability: Natural logarithm of its probability under the model, before filters.
        alternatives: The likeliest other tokens, if asked for.
        attention: Mean attention over the source positions, if asked for.
        aligned_source: Source positions it aligns with, if alignments were asked for.
        aligned_spans: What stands in the source's text at these positions, if the memory tells.
    """

    index: int
    id: int
    text: str
    log_probability: float
    alternatives: tuple[Alternative, ...] = ()
    attention: tuple[float, ...] = ()
    aligned_source: tuple[int, ...] = ()
    aligned_spans: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A candidate of a beam search.

    Attributes:
        text: Its text.
        tokens: Its tokens, the end token not among them.
        score: Sum of its log-probabilities after filters, the end token's included, divided by the
            number of its tokens, likewise, to the power of the length penalty.
        reason: Why it ended.
    """

    text: str
    tokens: tuple[Token, ...]
    score: float
    reason: EndReason


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of a generation went, in seconds, as the decoder measured it.

    Attributes:
        queue: Waiting for the first turn.
        first_token: From the call to the first token.
        step: Mean per step.
        total: The whole call.
    """

    queue: float = 0.0
    first_token: float = 0.0
    step: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class End:
    """How a generation ended.

    Attributes:
        reason: Why.
        tokens: Tokens that this call gave.
        total_tokens: Tokens of the target so far.
        steps: Steps computed for this call; in parallel decoding: passes.
        seed: The seed in use; 0 for greedy.
        log_probability: Of the end token, if the reason is EOS.
        text: Text that became certain only with the end.
        timings: Where the time went.
        drafted_tokens: Tokens that were guessed for this call.
        accepted_tokens: Tokens of those that the model agreed with.
        hypotheses: What a beam search has found, best first; the first is what was streamed.
    """

    reason: EndReason
    tokens: int
    total_tokens: int = 0
    steps: int = 0
    seed: int = 0
    log_probability: float = 0.0
    text: str = ""
    timings: Timings = Timings()
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    hypotheses: tuple[Hypothesis, ...] = ()


@dataclass(frozen=True, slots=True)
class Translation:
    """A text in one target language.

    Attributes:
        language: The target language as it was asked for.
        text: The translation, behind its prefix.
        tokens: Its tokens, numbered through even if a long text was translated in pieces.
        end: How it ended; sums over the pieces of a long text.
        source: The text that was translated.
        prefix: What it was asked to begin with, if that was text; `prefix + text` is the whole.
    """

    language: str
    text: str
    tokens: tuple[Token, ...]
    end: End
    source: str = ""
    prefix: str = ""

    @property
    def hypotheses(self) -> tuple[Hypothesis, ...]:
        """What a beam search has found, best first; the first is this translation."""
        return self.end.hypotheses

    @property
    def alignments(self) -> tuple[Alignment, ...]:
        """Words of `source` and of `text` that belong together, if alignments were asked for."""
        return align_words(self.source, self.tokens)

    @property
    def placeholders_kept(self) -> bool:
        """True if it has the placeholders, tags and entities of `source`, each as often."""
        return not astray(self.source, self.prefix + self.text)

    @property
    def log_probability(self) -> float:
        """Natural logarithm of the probability of the whole, end token included."""
        return sum(token.log_probability for token in self.tokens) + self.end.log_probability


@dataclass(frozen=True, slots=True)
class Rewound:
    """A loop that is steered has gone back.

    Attributes:
        index: Of the token that comes next; earlier ones with this index or a later one are void.
    """

    index: int


@dataclass(frozen=True, slots=True)
class Score:
    """How probable a given target is.

    Attributes:
        tokens: Its tokens, each with its log-probability after those before it; the end token is
            the last one if it was asked for.
        log_probability: Natural logarithm of the probability of the whole: their sum.
    """

    tokens: tuple[Token, ...]
    log_probability: float


@dataclass(frozen=True, slots=True)
class Segment:
    """Something that was said.

    Attributes:
        start: When it began, in seconds from the beginning of the audio.
        end: When it ended.
        text: What was said, with the space before it, if any: texts joined are the whole text.
        tokens: Its tokens, numbered through in its window.
    """

    start: float
    end: float
    text: str
    tokens: tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said in an audio.

    Attributes:
        language: The language spoken; empty if the model knows one only.
        text: All of it.
        segments: Its pieces, in order.
        duration: Length of the audio, in seconds.
    """

    language: str
    text: str
    segments: tuple[Segment, ...]
    duration: float
