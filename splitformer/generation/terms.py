"""Terms that a target must contain, and which of them a text still lacks.

A term is there where it stands as whole words, letter by letter. Its first letter may be a capital
where a sentence begins. One place in a text counts for one term only, the longest that it fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from splitformer import words

_OPENING = " \t\n\"'«»„“”‘’([{<¿¡*#-–—"
_ENDS_SENTENCE = ".!?:…。！？"


def begins_sentence(text: str) -> bool:
    """True if what follows a text begins a sentence."""
    said = text.rstrip(_OPENING)
    return not said or said[-1] in _ENDS_SENTENCE


def capitalised(term: str) -> str:
    """Return a term as it begins a sentence."""
    return term[0].upper() + term[1:]


@dataclass(frozen=True, slots=True)
class Spelling:
    """One way to write a term.

    Attributes:
        ids: Its tokens.
        text: What they add to a text that goes on before them.
    """

    ids: tuple[int, ...]
    text: str

    @property
    def spaced(self) -> bool:
        """True if it brings the space before its first word."""
        return self.text[0] == " "

    def fits(self, before: str, term: str) -> bool:
        """True if it may come behind a text."""
        if self.text.lstrip() != term and not begins_sentence(before):
            return False
        if self.spaced:
            return not before or words.joins(term[0]) or words.joins(before[-1])
        return not words.inside(before + term, len(before))


@dataclass(frozen=True, slots=True)
class Term:
    """A term that a target must contain.

    Attributes:
        text: The term, with single spaces.
        spellings: Ways to write it; see `length`.
    """

    text: str
    spellings: tuple[Spelling, ...]

    @property
    def length(self) -> int:
        """Fewest tokens that it takes wherever it comes; 0 if there are places where it cannot."""
        anywhere = [s for s in self.spellings if s.text.lstrip() == self.text and self._anywhere(s)]
        return min((len(spelling.ids) for spelling in anywhere), default=0)

    def places(self, text: str) -> Iterator[tuple[int, int]]:
        """Give the places where a text contains it."""
        yield from _places(self.text, text)
        capital = capitalised(self.text)
        if capital != self.text:
            for begin, end in _places(capital, text):
                if begins_sentence(text[:begin]):
                    yield begin, end

    def _anywhere(self, spelling: Spelling) -> bool:
        return spelling.spaced == words.joins(self.text[0])


def _places(words_in_order: str, text: str) -> Iterator[tuple[int, int]]:
    begin = text.find(words_in_order)
    while begin >= 0:
        end = begin + len(words_in_order)
        if not (words.inside(text, begin) or words.inside(text, end)):
            yield begin, end
        begin = text.find(words_in_order, begin + 1)


def lacking(terms: Sequence[Term], counts: Sequence[int], text: str) -> tuple[int, ...]:
    """Return how many times more a text has to contain each of some terms, longest first.

    Args:
        terms: The terms.
        counts: How many times it has to contain each.
        text: The text.
    """
    taken: list[tuple[int, int]] = []
    return tuple(
        most - _found(term, most, text, taken) for term, most in zip(terms, counts, strict=True)
    )


def surplus(terms: Sequence[Term], most: Sequence[float], text: str) -> bool:
    """True if a text contains one of some terms, longest first, more often than it may.

    Args:
        terms: The terms.
        most: How many times it may contain each; infinity: any number.
        text: The text.
    """
    taken: list[tuple[int, int]] = []
    return any(
        _found(term, len(text), text, taken) > allowed
        for term, allowed in zip(terms, most, strict=True)
    )


def _found(term: Term, most: int, text: str, taken: list[tuple[int, int]]) -> int:
    found = 0
    for begin, end in term.places(text):
        if found < most and all(end <= other[0] or other[1] <= begin for other in taken):
            taken.append((begin, end))
            found += 1
    return found
