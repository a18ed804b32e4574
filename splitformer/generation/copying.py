"""Guesses by copying: what followed in the source, or in the output, where the latest tokens stand.

Names, numbers, code and markup go from a source into its target as they are, token by token. So
once a token has been copied, its successor in the source is a good guess, and the better the longer
that has gone well. The same holds for what the output repeats (Yang et al. 2023; Saxena 2023).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from splitformer.generation.drafting import CLASS, LONGEST_MATCH, REPEATED, Drafting
from splitformer.generation.options import DraftMode
from splitformer.generation.target import Target
from splitformer.generation.tokens import Produced

_PLACES = 8
"""Most places in the source that are looked at for one token."""


class Copier:
    """A `Guesser`; see there. A *place* in the text is where a next token stands.

    Args:
        target: Whose.
        drafting: What is known of its model.
    """

    __slots__ = (
        *("_begins_word", "_behind", "_border", "_copied", "_drafting", "_followed", "_length"),
        *("_odds", "_place", "_repeated", "_target", "_text"),
    )
    mode = DraftMode.COPY

    def __init__(self, target: Target, drafting: Drafting) -> None:
        self._target = target
        self._drafting = drafting
        self._begins_word = drafting.begins_word
        self._odds = drafting.odds
        self._text: list[int] = []  # the source, a mark, the output; empty until it is needed
        self._border = 0  # place of the mark
        self._behind: dict[int, list[int]] = {}  # a token to the places behind it, in the source
        self._repeated: dict[int, int] = {}  # a token to the latest place behind it, in the output
        self._followed = 0
        self._place = 0  # of the next guess; 0: there is none
        self._length = 0  # tokens before it that match
        self._copied = 0  # place behind the last token that was copied from the source

    def guess(self, produced: Sequence[Produced], prices: Sequence[float]) -> list[int]:
        """Return what may come next, as far as each token is worth its price."""
        if not self._text:
            self._begin()
        for token in produced[self._followed :]:
            self._follow(token.id)
        self._followed = len(produced)
        return self._copy(prices) if self._place else []

    def _copy(self, prices: Sequence[float]) -> list[int]:
        """Go on from the place of the next guess."""
        text, place, length, chance = self._text, self._place, self._length, 1.0
        rates, begins_word = self._odds.rates, self._begins_word
        border, draft = self._border, list[int]()
        for price, token in zip(prices, text[place : place + len(prices)], strict=False):
            if token < 0:
                break
            kind = begins_word[token] * CLASS + length
            chance *= rates[kind if place <= border else kind + REPEATED]
            if chance < price:
                break
            draft.append(token)
            place += 1
            if length < LONGEST_MATCH:
                length += 1
        return draft

    def learn(self, outputs: Sequence[int], kept: int) -> None:
        """There is nothing to learn that the tokens themselves do not tell."""

    def _begin(self) -> None:
        """Look through the source; only if somebody wants a guess, and few do in a full batch."""
        source = self._drafting.source_of(self._target)
        self._text, self._border = [*source, -1], len(source)
        for place, token in enumerate(source, 1):
            self._behind.setdefault(token, []).append(place)

    def _follow(self, token: int) -> None:
        """Take in the next token of the output: see whether we had it right, and look anew."""
        text, place = self._text, self._place
        guessed = -1
        if place and (guessed := text[place]) >= 0:
            kind = self._begins_word[guessed] * CLASS + self._length
            self._odds.count(kind if place <= self._border else kind + REPEATED, guessed == token)
        text.append(token)
        if guessed == token:
            self._place = place + 1
            if self._length < LONGEST_MATCH:
                self._length += 1
        elif token in self._behind or token in self._repeated:
            self._find(token)
        else:
            self._place = 0
        if 0 < self._place <= self._border:
            self._copied = self._place
        self._repeated[token] = len(text)

    def _find(self, token: int) -> None:
        """Find the place before which most of the latest tokens stand; the source goes first.

        Of equals the next one in the source counts: most of a source is copied in its order.
        """
        self._place = self._length = 0
        if places := self._behind.get(token):
            after = bisect_right(places, self._copied)
            for place in places[after : after + _PLACES] or places[:_PLACES]:
                self._consider(place)
        if token in self._repeated:
            self._consider(self._repeated[token])

    def _consider(self, place: int) -> None:
        text, length = self._text, 1
        most = min(LONGEST_MATCH, place)
        while length < most and text[place - 1 - length] == text[-1 - length]:
            length += 1
        if length > self._length:
            self._place, self._length = place, length
