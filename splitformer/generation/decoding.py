"""What every way to decode is to the loop: it asks, it takes, it has news.

A way to decode is an object that goes on with one target. Before a step it says which sequences it
wants computed, and what it needs to know of their last rows; after the step it takes the answers;
then it tells its reader what has become certain. How many sequences that are, how many rows of each
and whether states are forked or cut back in between is its own business.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from splitformer.generation.hypotheses import Hypotheses
from splitformer.generation.speech import SpeechRules
from splitformer.generation.target import Target
from splitformer.generation.tokens import EndReason, Produced
from splitformer.model.cache import DecoderState
from splitformer.model.stepping import Advanced
from splitformer.native import Question

News = tuple[int, Produced] | Hypotheses | EndReason
"""A token that has become certain, with its index; what was found beside it; or the end."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What decoding has to know about token ids.

    Attributes:
        eos_id: The end token.
        never: Ids that no target may contain.
        size: How many ids there are (V).
        end_at_limit: The last token that a target has room for is the end token, whatever is
            likeliest.
        speech: What targets keep to if the model is one of speech.
    """

    eos_id: int
    never: tuple[int, ...] = ()
    size: int = 0
    end_at_limit: bool = False
    speech: SpeechRules | None = None

    def exhausted(self, denied: Collection[int]) -> bool:
        """True if nothing is left where so many ids are ruled out."""
        if not 0 < self.size <= len(denied) + len(self.never):
            return False  # most often
        return len({*denied, *self.never}) >= self.size


@dataclass(slots=True)
class Request:
    """What one step shall compute, put together by all who take part.

    Attributes:
        tokens: New input tokens of each sequence, at least one.
        states: The sequences' states.
        outputs: From how many of its last new positions each sequence wants an output.
        asked: What is asked about some outputs.
        count: Outputs so far: the number of the next one.
        company: Sequences of all who take part, about; 1 if that is not known.
        focus: Somebody wants to know where in the memory outputs look.
    """

    tokens: list[Sequence[int]] = field(default_factory=list)
    states: list[DecoderState] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    asked: dict[int, Question] = field(default_factory=dict)
    count: int = 0
    company: int = 1
    focus: bool = False

    def add(self, tokens: Sequence[int], state: DecoderState, outputs: int = 1) -> int:
        """Add a sequence; return the number of its first output."""
        self.tokens.append(tokens)
        self.states.append(state)
        self.outputs.append(outputs)
        first = self.count
        self.count = first + outputs
        return first


class Decoding(Protocol):
    """A way to decode, at work on one target.

    Attributes:
        target: What it goes on with.
        limit: Length of the target at which it stops.
        seed: Key of the generator; 0 where nothing is drawn.
        width: Most sequences that it puts into a step.
        held_bytes: Most bytes of keys and values that it holds beside the target's own.
    """

    @property
    def target(self) -> Target: ...  # noqa: D102

    @property
    def limit(self) -> int: ...  # noqa: D102

    @property
    def seed(self) -> int: ...  # noqa: D102

    @property
    def width(self) -> int: ...  # noqa: D102

    @property
    def held_bytes(self) -> int: ...  # noqa: D102

    @property
    def finished(self) -> bool:
        """True if there is nothing left to compute."""

    def ask(self, request: Request) -> None:
        """Add the sequences of the next step; only while it is not finished.

        Asking again before taking must ask the same.
        """

    def take(self, answer: Advanced, first: int) -> None:
        """Take the step's answers; its own outputs begin at `first`."""

    def certain(self) -> list[tuple[int, Produced]]:
        """Return the tokens, with their indices, that became certain since the last call."""

    def news(self) -> list[News]:
        """Return what became certain since the last call; once finished, the end is its last."""
