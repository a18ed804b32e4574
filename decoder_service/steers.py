"""What the caller of an interaction may ask for, and what is wrong with what cannot be done."""

from __future__ import annotations

from dataclasses import dataclass

from splitformer.errors import FailedPreconditionError, InvalidArgumentError
from splitformer.generation import GenerationOptions, Vocabulary


@dataclass(frozen=True, slots=True)
class Start:
    """What a caller begins with; see `Generating.generate`."""

    session_id: str
    options: GenerationOptions
    start_index: int | None = None
    tokens_per_message: int = 1
    close_on_end: bool = False


@dataclass(frozen=True, slots=True)
class Force:
    """Take this token next, or at `index`, taking back what is there."""

    token: int
    index: int | None = None


@dataclass(frozen=True, slots=True)
class Rewind:
    """Go back: the token at `index` is the next one to come. As an answer: done."""

    index: int


@dataclass(frozen=True, slots=True)
class Redirect:
    """Go on with other options."""

    options: GenerationOptions


@dataclass(frozen=True, slots=True)
class Finish:
    """Stop."""


@dataclass(frozen=True, slots=True)
class Steer:
    """One request.

    Attributes:
        action: What to do.
        hold: Stand still until a request comes that does not hold.
    """

    action: Start | Force | Rewind | Redirect | Finish
    hold: bool = False


def bad_action(field: str, rule: str) -> InvalidArgumentError:
    """Say what is wrong with a request."""
    return InvalidArgumentError.of(field, rule, None, reason="BAD_ACTION")


def check_options(options: GenerationOptions, vocabulary: Vocabulary) -> None:
    """InvalidArgumentError BAD_OPTION if these are no options of a loop that can be steered."""
    options.check(vocabulary.size, stepwise=True)


def check_rewind(index: int, produced: int, field: str) -> None:
    """FailedPreconditionError REWIND_BEFORE_PREFIX or REWIND_AHEAD if that is no place to be."""
    rule, reason = f"must be at most {produced}, the next token's", "REWIND_AHEAD"
    if index < 0:
        rule, reason = "must be at least 0, the first after the prefix", "REWIND_BEFORE_PREFIX"
    if not 0 <= index <= produced:
        raise FailedPreconditionError(f"{field}: {rule}, got {index}", reason=reason)
