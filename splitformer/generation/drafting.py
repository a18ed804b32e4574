"""Guessing several tokens at once: who guesses, how sure a guess is, and what it costs to try.

A guess is tried by computing its rows together with the next token's. Rows are not free, so that a
guess must be likelier than its price to be worth it. The first rows are the cheapest, and the more
sequences share a step, the less it costs for each of them, and the dearer is one more row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise, takewhile
from typing import Protocol

from splitformer.generation.odds import Odds
from splitformer.generation.options import DraftMode
from splitformer.generation.row_cost import DEAR, RowCosts
from splitformer.generation.target import Target
from splitformer.generation.tokens import Produced
from splitformer.model.tokenizer import BEGINNINGS

_MARGIN = 1.4
"""A row competes with the tokens that a step brings anyway, guessed ones among them; see
docs/decisions/0019."""

_BEGINNING = 0.06
"""What a guess costs beyond its rows, in steps of one row: putting it together, asking and taking
it in Python."""

_LEAST_INSIDE = 0.5
"""Of 5,432 targets in five languages, those whose sources had a share of 0.5 to 0.55 of tokens that
do not begin a word took 10 to 12 % less time with guesses, 3 to 6 % where little was copied; those
below 0.4 between 4 % less and 2 % more. See docs/decisions/0051."""

Look = tuple[int, float]
"""Position of the memory that the model looked at most as it chose a token, and how much: the mean
weight of the last layer's heads."""

NOWHERE: Look = (-1, 0.0)
"""It is not known where."""


class Guesser(Protocol):
    """Makes guesses for one target.

    Attributes:
        mode: What it is called.
        looks: It wants to know where the model looks.
    """

    @property
    def mode(self) -> DraftMode: ...  # noqa: D102

    @property
    def looks(self) -> bool: ...  # noqa: D102

    def guess(
        self, produced: Sequence[Produced], prices: Sequence[float], look: Look = NOWHERE
    ) -> list[int]:
        """Return the tokens that may come next, as far as each is worth its price.

        Args:
            produced: The target's tokens so far, to be caught up with.
            prices: How likely the first, second, ... token must be to be reached and right; a
                guess is no longer than these.
            look: Where the model looked as it chose the last token.
        """

    def learn(self, outputs: Sequence[int], kept: int) -> None:
        """See what the model made of the last guess.

        Args:
            outputs: The likeliest token at each of its rows; the first needed no guess.
            kept: How many tokens of the guess were right.
        """


@dataclass(frozen=True, slots=True)
class Drafting:
    """What drafts have to know of a model and of the machine that it runs on.

    Attributes:
        costs: What rows cost.
        lossless: True if several positions at once give the same bits as one after the other.
        token_kinds: Of each target id; see `Tokenizer.token_kinds`.
        unusable: Ids of a source that no target contains; None: it has a vocabulary of its own.
        most: Longest guess.
        odds: What has been learned from all targets.
    """

    costs: RowCosts = DEAR
    lossless: bool = False
    token_kinds: bytes = b""
    unusable: frozenset[int] | None = None
    most: int = 16
    odds: Odds = field(default_factory=Odds)
    _prices: dict[int, tuple[float, ...]] = field(default_factory=dict, init=False)

    def prices(self, company: int) -> tuple[float, ...]:
        """How likely each token of a guess must be right to be worth its row.

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
        prices[0] += _BEGINNING * self.costs.step(1) / token
        return tuple(takewhile(lambda price: price < 1, prices))

    def promises(self, target: Target) -> bool:
        """True if a target is likely to copy a good part of its source.

        Translations keep numbers, code, markup and names, which are spelled in many short tokens;
        of ordinary sentences most tokens begin a word, and even to look for copies would not pay.
        """
        source = target.source
        if self.unusable is None or not source:
            return False
        kinds, size = self.token_kinds, len(self.token_kinds)
        inside = sum(piece.id >= size or kinds[piece.id] not in BEGINNINGS for piece in source)
        return inside >= _LEAST_INSIDE * len(source)

    def source_of(self, target: Target) -> list[int]:
        """Return the source in ids of the target, -1 where it has none."""
        if self.unusable is None:
            return []
        size, unusable = len(self.token_kinds), self.unusable
        ids = (piece.id for piece in target.source)
        return [token if token < size and token not in unusable else -1 for token in ids]


NO_DRAFTS = Drafting()
"""Nothing is guessed."""
