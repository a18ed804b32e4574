"""Guessing several tokens at once: who guesses, how sure a guess is, and what it costs to try.

A guess is tried by computing its rows together with the next token's. Rows are not free, so that a
guess must be likelier than its price to be worth it. The first rows are the cheapest, and the more
sequences share a step, the less it costs for each of them, and the dearer is one more row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

from splitformer.generation.options import DraftMode
from splitformer.generation.row_cost import DEAR, RowCosts
from splitformer.generation.target import Target
from splitformer.generation.tokens import Produced

LONGEST_MATCH = 8
"""A match that is longer counts as this long."""

_MARGIN = 1.4
"""A row competes with the tokens that a step brings anyway, guessed ones among them; see
docs/decisions/0019."""

_LEAST_INSIDE = 0.55
"""Of 1,480 targets, 25 % of those with less than 30 % of their tokens from the source had sources
with such a share of tokens that do not begin a word; 82 % of those with 30 to 60 %, all others."""

_PRIOR_WEIGHT, _MEMORY = 20, 2000
"""Guesses that what is assumed beforehand counts for, and after which old ones are forgotten."""

CLASS, REPEATED = LONGEST_MATCH + 1, 2 * (LONGEST_MATCH + 1)
"""The class of a guess: the length of the match before it, `CLASS` more if it begins a word, and
`REPEATED` more if it comes from the output."""

# How often the next token was right after matches of 1, 2, ... tokens, in German, French and
# Japanese outputs of the embedded model: copied from the source or repeated from the output, and
# where it begins a word, which translation seldom leaves as it is.
_COPIED = (0.44, 0.67, 0.74, 0.78, 0.85, 0.87, 0.90, 0.91)
_COPIED_WORD = (0.06, 0.11, 0.12, 0.12, 0.20, 0.20, 0.25, 0.28)
_REPEATED = (0.25, 0.50, 0.55, 0.62, 0.65, 0.70, 0.70, 0.77)
_REPEATED_WORD = (0.10, 0.20, 0.25, 0.30, 0.30, 0.30, 0.30, 0.30)


class Guesser(Protocol):
    """Makes guesses for one target.

    Attributes:
        mode: What it is called.
    """

    @property
    def mode(self) -> DraftMode: ...  # noqa: D102

    def guess(self, produced: Sequence[Produced], prices: Sequence[float]) -> list[int]:
        """Return the tokens that may come next, as far as each is worth its price.

        Args:
            produced: The target's tokens so far, to be caught up with.
            prices: How likely the first, second, ... token must be to be reached and right, in
                rising order; a guess is no longer than these.
        """

    def learn(self, outputs: Sequence[int], kept: int) -> None:
        """See what the model made of the last guess.

        Args:
            outputs: The likeliest token at each of its rows; the first needed no guess.
            kept: How many tokens of the guess were right.
        """


class Odds:
    """How likely guesses are right, by class: learned from all targets, with a memory that fades.

    Attributes:
        rates: The odds of each class.
    """

    __slots__ = ("_trials", "rates")

    def __init__(self) -> None:
        self.rates = [0.0]
        for rates in (_COPIED, _COPIED_WORD, _REPEATED, _REPEATED_WORD):
            self.rates += [*rates, 0.0]
        self._trials = [_PRIOR_WEIGHT] * len(self.rates)

    def count(self, kind: int, right: bool) -> None:
        """Learn that a guess of this class was right or wrong."""
        trials = self._trials[kind] = min(self._trials[kind] + 1, _MEMORY)
        self.rates[kind] += (right - self.rates[kind]) / trials


def _nobody(mode: DraftMode, drafted: int, kept: int) -> None:
    """Count nothing."""


@dataclass(frozen=True, slots=True)
class Drafting:
    """What drafts have to know of a model and of the machine that it runs on.

    Attributes:
        costs: What rows cost.
        lossless: True if several positions at once give the same bits as one after the other.
        begins_word: Of each target id, 1 if it begins a word, else 0.
        unusable: Ids of a source that no target contains; None: it has a vocabulary of its own.
        most: Longest guess.
        counted: Told how many tokens were drafted and kept, after each step with a draft.
        odds: What has been learned from all targets.
    """

    costs: RowCosts = DEAR
    lossless: bool = False
    begins_word: bytes = b""
    unusable: frozenset[int] | None = None
    most: int = 16
    counted: Callable[[DraftMode, int, int], None] = _nobody
    odds: Odds = field(default_factory=Odds)
    _prices: dict[int, tuple[float, ...]] = field(default_factory=dict, init=False)

    def prices(self, company: int) -> tuple[float, ...]:
        """How likely each token of a guess must be right to be worth its row, in rising order.

        Args:
            company: Sequences in the step.

        Returns:
            As many as the longest guess has that can be worth it.
        """
        if (prices := self._prices.get(company)) is None:
            prices = self._prices[company] = self._priced(company)
        return prices

    def _priced(self, company: int) -> tuple[float, ...]:
        costs = [self.costs.step(company + rows) for rows in range(self.most + 1)]
        token = costs[0] / company
        prices = [_MARGIN * (more - less) / token for less, more in pairwise(costs)]
        return tuple(price for price in prices if price < 1)

    def promises(self, target: Target) -> bool:
        """True if a target is likely to copy a good part of its source.

        Translations keep numbers, code, markup and names, which are spelled in many short tokens;
        of ordinary sentences most tokens begin a word, and even to look for copies would not pay.
        """
        source = target.source
        if self.unusable is None or not source:
            return False
        begins, size = self.begins_word, len(self.begins_word)
        inside = sum(piece.id >= size or not begins[piece.id] for piece in source)
        return inside >= _LEAST_INSIDE * len(source)

    def source_of(self, target: Target) -> list[int]:
        """Return the source in ids of the target, -1 where it has none."""
        if self.unusable is None:
            return []
        size, unusable = len(self.begins_word), self.unusable
        ids = (piece.id for piece in target.source)
        return [token if token < size and token not in unusable else -1 for token in ids]


NO_DRAFTS = Drafting()
"""Nothing is guessed."""
