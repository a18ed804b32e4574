"""How likely guesses are right, by what they rest on: learned from all targets, by and by."""

from __future__ import annotations

LONGEST = 4
"""Tokens before a guess that match; more count as many."""

KINDS = 4
"""Of tokens; see `splitformer.model.tokenizer`."""

FIRST, AGREES, POINTED, MATCH, REPEATED = 0, 1, 4, 7, 8
"""What a guess rests on: it begins source and target; the model looked at the token before it,
which was copied; it looked at a token before it that was not copied; the tokens before it were
copied, though the model looked elsewhere; the output repeats itself. `AGREES` and `POINTED` take
up three numbers each, by how much the model looked there."""

LITTLE, MUCH = 0.25, 0.5
"""Bounds of how much the model looks at a place of the source."""

_PRIOR_WEIGHT, _MEMORY = 20, 2000
"""Guesses that what is known beforehand counts for, and after which old ones are forgotten."""

# How often the next token was right: by what it rests on, the tokens before it that match (none, 1,
# 2, 3, more), and its kind (a sign, a word, a name, inside a word). In 3,958 outputs of the
# embedded model in five languages, over lines of Python's documentation and code, of packages'
# descriptions, and of interfaces.
_RATES = (
    (
        (0.92, 0.12, 0.13, 0.39),
        (0.94, 0.12, 0.18, 0.80),
        (0.80, 0.25, 0.53, 0.92),
        (0.81, 0.30, 0.24, 0.92),
        (0.95, 0.19, 0.38, 0.96),
    ),
    (
        (0.00, 0.00, 0.00, 0.00),
        (0.35, 0.08, 0.22, 0.40),
        (0.67, 0.14, 0.38, 0.68),
        (0.62, 0.14, 0.23, 0.65),
        (0.73, 0.19, 0.41, 0.74),
    ),
    (
        (0.00, 0.00, 0.00, 0.00),
        (0.57, 0.10, 0.23, 0.63),
        (0.78, 0.07, 0.26, 0.77),
        (0.70, 0.11, 0.23, 0.75),
        (0.84, 0.20, 0.47, 0.85),
    ),
    (
        (0.00, 0.00, 0.00, 0.00),
        (0.60, 0.05, 0.16, 0.71),
        (0.76, 0.11, 0.37, 0.86),
        (0.77, 0.12, 0.28, 0.84),
        (0.87, 0.14, 0.42, 0.90),
    ),
    (
        (0.10, 0.00, 0.06, 0.03),
        (0.55, 0.12, 0.18, 0.37),
        (0.82, 0.15, 0.39, 0.89),
        (0.93, 0.16, 0.24, 0.89),
        (0.86, 0.19, 0.41, 0.88),
    ),
    (
        (0.17, 0.03, 0.12, 0.05),
        (0.79, 0.12, 0.18, 0.70),
        (0.82, 0.15, 0.39, 0.89),
        (0.93, 0.16, 0.24, 0.89),
        (0.86, 0.19, 0.41, 0.88),
    ),
    (
        (0.32, 0.04, 0.21, 0.11),
        (0.73, 0.12, 0.28, 0.75),
        (0.83, 0.15, 0.40, 0.90),
        (0.95, 0.16, 0.24, 0.90),
        (0.86, 0.19, 0.41, 0.88),
    ),
    (
        (0.00, 0.00, 0.00, 0.00),
        (0.30, 0.02, 0.17, 0.22),
        (0.46, 0.07, 0.44, 0.64),
        (0.65, 0.09, 0.25, 0.78),
        (0.76, 0.19, 0.46, 0.83),
    ),
    (
        (0.00, 0.00, 0.00, 0.00),
        (0.32, 0.19, 0.14, 0.25),
        (0.53, 0.25, 0.36, 0.53),
        (0.58, 0.25, 0.21, 0.62),
        (0.71, 0.39, 0.33, 0.66),
    ),
)


def looked(weight: float) -> int:
    """Return 0, 1 or 2 for a little, some or much attention."""
    return (weight > LITTLE) + (weight > MUCH)


def class_of(trust: int, length: int, kind: int) -> int:
    """Return the class of a guessed token.

    Args:
        trust: What it rests on.
        length: Tokens before it that match or are guessed as well.
        kind: Of the token.
    """
    return (trust * (LONGEST + 1) + (length if length < LONGEST else LONGEST)) * KINDS + kind


class Odds:
    """Odds with a memory that fades.

    Attributes:
        rates: How likely a guess is right, by its class.
    """

    __slots__ = ("_trials", "rates")

    def __init__(self) -> None:
        self.rates = [rate for trust in _RATES for length in trust for rate in length]
        self._trials = [_PRIOR_WEIGHT] * len(self.rates)

    def count(self, kind: int, right: bool) -> None:
        """Learn that a guess of this class was right or wrong."""
        trials = self._trials[kind]
        if trials < _MEMORY:
            trials = self._trials[kind] = trials + 1
        self.rates[kind] += (right - self.rates[kind]) / trials
