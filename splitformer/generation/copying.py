"""Guesses by copying: what stands in the source where the model looks, or what the output repeats.

Names, numbers, code and markup go from a source into its target as they are, token by token. So
once a token has been copied, its successor in the source is a good guess, and the better the longer
that has gone well (Yang et al. 2023). Which of several places goes on, and where the next copy
begins, tells the attention with which the last token was chosen. What the output has said before
it may say again (Saxena 2023).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from splitformer.generation.drafting import NOWHERE, Drafting, Look
from splitformer.generation.odds import (
    AGREES,
    FIRST,
    KINDS,
    LONGEST,
    MATCH,
    POINTED,
    REPEATED,
    class_of,
    looked,
)
from splitformer.generation.options import DraftMode
from splitformer.generation.target import Target
from splitformer.generation.tokens import Produced

_LONGEST_MATCH = 8
"""Most tokens that are compared to tell places apart."""

_PLACES = 8
"""Most places in the source that are looked at for one token."""


_Lead = tuple[float, int, int, int, int]
"""A place from which the text may go on: how likely its token comes next, the class of that, where
it stands, what it rests on, and how many tokens before it match."""


class Copier:
    """A `Guesser`; see there. A *place* in the text is where a next token stands.

    Args:
        target: Whose.
        drafting: What is known of its model.
    """

    __slots__ = (
        *("_again", "_behind", "_border", "_draft", "_drafting", "_followed", "_kinds"),
        *("_leads", "_near", "_odds", "_repeated", "_target", "_text", "_token_kinds"),
    )
    mode = DraftMode.COPY
    looks = True

    def __init__(self, target: Target, drafting: Drafting) -> None:
        self._target = target
        self._drafting = drafting
        self._token_kinds = drafting.token_kinds
        self._odds = drafting.odds
        self._text: list[int] = []  # the source, a mark, the output; empty until it is needed
        self._border = 0  # place of the mark
        self._behind: dict[int, list[int]] = {}  # a token to the places behind it, in the source
        self._repeated: dict[int, int] = {}  # a token to the latest place behind it, in the output
        self._again = 0  # the one before that of the last token; 0: it is new
        self._followed = 0
        self._near = 0  # place up to which the source has been copied
        self._leads: list[_Lead] = []  # of the next token
        self._draft: list[int] = []  # the last guess, and the classes of its tokens
        self._kinds: list[int] = []

    def guess(
        self, produced: Sequence[Produced], prices: Sequence[float], look: Look = NOWHERE
    ) -> list[int]:
        """Return what may come next, as far as each token is worth its price."""
        if not self._text:
            self._begin()
        if len(produced) > self._followed:
            self._follow([token.id for token in produced[self._followed :]])
        self._leads, self._draft, self._kinds = [], [], []
        self._find(look)
        if self._leads and (best := max(self._leads))[0] >= prices[0]:
            self._copy(best, prices)
        return self._draft

    def learn(self, outputs: Sequence[int], kept: int) -> None:
        """There is nothing to learn that the tokens themselves do not tell."""

    def _begin(self) -> None:
        """Look through the source; only if somebody wants a guess, and few do in a full batch."""
        source = self._drafting.source_of(self._target)
        self._text, self._border = [*source, -1], len(source)
        for place, token in enumerate(source, 1):
            self._behind.setdefault(token, []).append(place)

    def _follow(self, new: list[int]) -> None:
        """Take in the next tokens of the output: see which guesses were right."""
        text, repeated, count = self._text, self._repeated, self._odds.count
        for _, kind, place, _, _ in self._leads:
            count(kind, text[place] == new[0])
        for i in range(1, min(len(self._draft), len(new))):
            if self._draft[i - 1] != new[i - 1]:
                break
            count(self._kinds[i], self._draft[i] == new[i])
        for token in new:
            text.append(token)
            self._again = repeated.get(token, 0)
            repeated[token] = len(text)
        self._followed += len(new)

    def _find(self, look: Look) -> None:
        """Find the places from which the text may go on."""
        place, weight = look
        text, matched = self._text, 0
        if not self._followed:
            self._lead(0, FIRST, 0)
            return
        last = text[-1]
        if 0 <= place < self._border:
            self._near = place + 1
            if text[place] == last:
                matched = place + 1
                self._lead(matched, AGREES + looked(weight), self._matching(matched))
            else:
                self._lead(place + 1, POINTED + looked(weight), 0)
        if (places := self._behind.get(last)) and matched not in places:
            self._match(places)
        if self._again:
            self._lead(self._again, REPEATED, self._matching(self._again))

    def _match(self, places: list[int]) -> None:
        """Find the place in the source before which most of the latest tokens stand.

        Of equals the next one counts: most of a source is copied in its order.
        """
        best = length = 0
        after = bisect_left(places, self._near)
        for place in places[after : after + _PLACES] or places[:_PLACES]:
            if (matching := self._matching(place)) > length:
                best, length = place, matching
        self._near = best
        self._lead(best, MATCH, length)

    def _lead(self, place: int, trust: int, length: int) -> None:
        if (token := self._text[place]) >= 0:
            kind = class_of(trust, length, self._token_kinds[token])
            self._leads.append((self._odds.rates[kind], kind, place, trust, length))

    def _matching(self, place: int) -> int:
        """Count tokens before a place that are the latest ones too; the last one is."""
        text, length = self._text, 1
        most = min(_LONGEST_MATCH, place)
        while length < most and text[place - 1 - length] == text[-1 - length]:
            length += 1
        return length

    def _copy(self, lead: _Lead, prices: Sequence[float]) -> None:
        """Go on from a place."""
        _, _, place, trust, length = lead
        rates, token_kinds, chance = self._odds.rates, self._token_kinds, 1.0
        draft, kinds, first = self._draft, self._kinds, class_of(trust, length, 0)
        tokens = self._text[place : place + len(prices)]
        for price, token in zip(prices, tokens, strict=False):
            if token < 0:
                break
            kind = first + token_kinds[token]
            chance *= rates[kind]
            if chance < price:
                break
            draft.append(token)
            kinds.append(kind)
            if length < LONGEST:
                length, first = length + 1, first + KINDS
