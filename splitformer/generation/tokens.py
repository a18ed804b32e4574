"""A token of a target with all that is told of it, and why a target ends; plain data."""

from __future__ import annotations

import enum
from array import array
from typing import NamedTuple


class EndReason(enum.Enum):
    """Why a target or a generation has ended."""

    EOS = "eos"
    LENGTH = "length"
    STOP = "stop"
    CANCELLED = "cancelled"


_NO_WEIGHTS = array("f")


class Alternative(NamedTuple):
    """A token that was not taken.

    Attributes:
        id: Token id.
        text: Text that would have become certain with it.
        log_probability: Natural logarithm of its probability under the model.
    """

    id: int
    text: str
    log_probability: float


class Details(NamedTuple):
    """What is known of a token beside itself, as far as it was asked for.

    Attributes:
        alternatives: The likeliest other tokens, likeliest first.
        attention: Over the memory when it was chosen (S), float32; or empty.
        aligned: Source positions that it aligns with.
    """

    alternatives: tuple[Alternative, ...] = ()
    attention: array[float] = _NO_WEIGHTS
    aligned: tuple[int, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Bytes that it takes while it is kept, about."""
        return details_bytes(len(self.alternatives), len(self.attention), len(self.aligned))


def details_bytes(alternatives: int, weights: int, aligned: int) -> int:
    """Return what details of one token take, about.

    Args:
        alternatives: Other tokens.
        weights: Source positions whose attention is told.
        aligned: Source positions that it aligns with.
    """
    return _ALTERNATIVE_BYTES * alternatives + 4 * weights + 8 * aligned


_ALTERNATIVE_BYTES = 160
"""An `Alternative` with a short text."""


class Produced(NamedTuple):
    """A token of the target.

    Attributes:
        id: Token id.
        text: Text that became certain with it.
        log_probability: Natural logarithm of its probability under the model, before filters.
        details: More about it; None unless somebody asked.
    """

    id: int
    text: str
    log_probability: float
    details: Details | None = None
