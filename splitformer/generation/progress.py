"""How far a hypothesis has come with the terms that it must contain.

A term counts where the text contains it, however it was spelled; one that turns out to be the
beginning of a longer word does not count any more. What has been begun with one of the known
spellings is followed token by token, several terms at once if they begin alike (as in the tries of
Hu et al. 2019).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from splitformer.generation.glossary import Wanted
from splitformer.generation.stops import Said
from splitformer.generation.terms import lacking, surplus


class Begun(NamedTuple):
    """A term that is being written.

    Attributes:
        term: Its number.
        rest: Tokens that are left of it.
        place: What the place counts where it begins.
        before: The hypothesis' sum of log-probabilities before it.
    """

    term: int
    rest: tuple[int, ...]
    place: float
    before: float


@dataclass(slots=True)
class Progress:
    """How far a hypothesis has come.

    Attributes:
        said: Its text.
        lacks: For each term, how many times it has yet to come.
        left: Fewest tokens that it takes to write what is lacking.
        begun: Terms that are being written.
        ways: Terms that may begin now, with the tokens of each way to do it.
        places: What the places count where its terms begin.
        tokens: Sum of the log-probabilities of the tokens of complete terms.
        steps: By token: what it goes on with or begins. Empty until `offer`.
    """

    said: Said
    lacks: tuple[int, ...]
    left: int
    begun: tuple[Begun, ...]
    ways: tuple[tuple[int, tuple[int, ...]], ...]
    places: float
    tokens: float
    steps: dict[int, list[Begun]] = field(default_factory=dict)

    def offer(self, places: Sequence[float], total: float) -> None:
        """Say what it counts to begin each term now, and what the sum is so far."""
        self.steps = {}
        for each in (*self.begun, *(Begun(i, ids, places[i], total) for i, ids in self.ways)):
            self.steps.setdefault(each.rest[0], []).append(each._replace(rest=each.rest[1:]))


class Writing:
    """Follows hypotheses over what is wanted.

    Args:
        wanted: What they must contain.

    Attributes:
        all_tokens: Fewest tokens that it takes to write all of it.
    """

    def __init__(self, wanted: Wanted) -> None:
        self._terms, self._counts, self._most = wanted.terms, wanted.counts, wanted.most
        self._lengths = [term.length for term in wanted.terms]
        self.all_tokens = self._tokens_of(wanted.counts)

    def begin(self, said: Said) -> Progress:
        """Return how far a text has come on its own."""
        return self._read(said, (), 0.0, 0.0)

    def after(self, before: Progress, token: int, total: float) -> Progress:
        """Return how far a hypothesis has come with one more token.

        Args:
            before: How far it had come, after `offer`.
            token: The token.
            total: Sum of all log-probabilities, this token's included.
        """
        begun = before.steps.get(token, ())
        places = before.places - _best_place(before.begun)
        done = [each for each in begun if not each.rest]
        tokens = before.tokens + max((total - each.before for each in done), default=0.0)
        return self._read(before.said.add(token), begun, places, tokens)

    def surplus(self, progress: Progress, ended: bool) -> bool:
        """True if a text contains a term more often than it may, whatever comes behind it.

        Args:
            progress: Of the text.
            ended: Nothing comes behind it: what it ends with is not the beginning of a longer word.
        """
        if min(self._most) == math.inf:
            return False
        return surplus(self._terms, self._most, progress.said.text + ("" if ended else "a"))

    def _read(self, said: Said, begun: Iterable[Begun], places: float, tokens: float) -> Progress:
        lacks = lacking(self._terms, self._counts, said.text)
        begun = tuple(begun)
        going = tuple(each for each in begun if each.rest and lacks[each.term])
        written = max((self._lengths[e.term] - len(e.rest) for e in going), default=0)
        places += _best_place([each for each in begun if not each.rest] or going)
        left = self._tokens_of(lacks) - max(0, written)
        return Progress(said, lacks, left, going, self._ways(said.text, lacks), places, tokens)

    def _ways(self, text: str, lacks: Sequence[int]) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """Terms that are lacking, in the spellings that can come behind a text."""
        return tuple(
            (i, spelling.ids)
            for i, term in enumerate(self._terms)
            if lacks[i]
            for spelling in term.spellings
            if spelling.fits(text, term.text)
        )

    def _tokens_of(self, counts: Sequence[int]) -> int:
        return sum(count * length for count, length in zip(counts, self._lengths, strict=True))


def _best_place(begun: Iterable[Begun]) -> float:
    return max((each.place for each in begun), default=0.0)
