"""Guesses by Jacobi iteration: what the model made of the last guess is the next one.

A wrong token spoils the outputs behind it less than one would think: many of them are what they
will be in the end, in their places (Santilli et al. 2023). They cost nothing but the rows that
were computed anyway; to have more of them, a window of places ahead is kept filled.
"""

from __future__ import annotations

from collections.abc import Sequence

from splitformer.generation.drafting import NOWHERE, Look
from splitformer.generation.options import DraftMode
from splitformer.generation.tokens import Produced

WINDOW = 4
"""Places ahead that are guessed."""

_FIRST_REST = 64
"""Tokens after which a target that was not worth it is tried again; then twice as many."""

_TRIAL, _FADING = 1.5, 0.1
"""A trial begins this many times above the price; each step counts for a tenth."""


class Iteration:
    """A `Guesser`; see there.

    A window is guessed as a whole, for as long as it has lately brought more right tokens than its
    rows were worth.
    """

    mode = DraftMode.JACOBI
    looks = False

    def __init__(self) -> None:
        self._begin = 0  # index of the token that the last guess begins with
        self._ahead: list[int] = []  # the model's outputs behind the last right one
        self._from = 0  # index of the first of them
        self._worth = 0.0  # right tokens per row, lately
        self._rest, self._until = 0, 0

    def guess(
        self, produced: Sequence[Produced], prices: Sequence[float], look: Look = NOWHERE
    ) -> list[int]:
        """Return a window of guesses if they are worth their price."""
        self._begin = known = len(produced)
        window = prices[:WINDOW]
        price = sum(window) / len(window)
        if known < self._until:
            return []
        if self._until >= 0:  # a trial begins
            self._until, self._worth = -1, _TRIAL * price
        elif self._worth < price:
            self._rest = 2 * self._rest or _FIRST_REST
            self._until = known + self._rest
            return []
        ahead = self._ahead[known - self._from :] if known >= self._from else []
        filler = [produced[-1].id] if produced else []
        return [*ahead, *filler * (WINDOW - len(ahead))][: len(window)]

    def learn(self, outputs: Sequence[int], kept: int) -> None:
        """Keep what the model made of the places behind the last right guess."""
        self._ahead, self._from = list(outputs[kept + 1 :]), self._begin + kept + 1
        self._worth += _FADING * (kept / (len(outputs) - 1) - self._worth)
