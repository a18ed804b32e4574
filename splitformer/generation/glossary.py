"""Glossaries: which terms a target must contain, and how a model can spell them.

A source term counts as often as it stands in the source as whole words; one in lower case in
whatever case, any other as it is written. Longer terms go first, and what they cover is taken.
A term that must come out as it is, such as a placeholder, comes as often as that and no more often.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache

from splitformer import words
from splitformer.errors import FailedPreconditionError, InvalidArgumentError
from splitformer.generation.contradictions import refuse, violation
from splitformer.generation.decoding import Vocabulary
from splitformer.generation.options import GenerationOptions
from splitformer.generation.target import Target
from splitformer.generation.terms import Spelling, Term, capitalised
from splitformer.model.tokenizer import Tokenizer

_CONTEXTS = ("(", "a")
"""What a term may follow without a space; a sign may make one piece with the first: ``(%``."""

_MOST_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one target must contain.

    Attributes:
        terms: At least one, the longest first.
        counts: How many times it must contain each.
        most: How many times it may contain each: as often as it must where its source is the same
            text, else any number.
        rows: For each term, the rows of the memory that stand for its source; none if unknown.
        prefix: Text that the target begins with, which counts too.
    """

    terms: tuple[Term, ...]
    counts: tuple[int, ...]
    most: tuple[float, ...]
    rows: tuple[tuple[int, ...], ...]
    prefix: str = ""


class Glossary:
    """Looks terms up for one model.

    Args:
        tokenizer: The model's.
        vocabulary: Its ids.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._remembered = lru_cache(_MOST_REMEMBERED)(self._spellings)
        self._remembered_words = lru_cache(_MOST_REMEMBERED)(self._spellings_of_word)

    def wanted(self, options: GenerationOptions, target: Target) -> Wanted | None:
        """Return what a target must contain; None if the source contains no term.

        Raises:
            FailedPreconditionError: NO_SOURCE_TEXT, the memory does not tell of its source.
            InvalidArgumentError: BAD_OPTION; the model cannot spell a term.
        """
        if not options.glossary:
            return None
        if not target.source_text:
            raise FailedPreconditionError(
                "options.glossary: needs a memory whose header holds the text of its source",
                reason="NO_SOURCE_TEXT",
            )
        found = occurring(options.glossary, target.source_text)
        spelled = {i: self._spelled(options, i) for i in found}
        self._refuse_unspelled(options, spelled)
        places = dict[Term, list[tuple[int, int]]]()
        for i, term in spelled.items():
            places.setdefault(term, []).extend(found[i])
        free = {term for i, term in spelled.items() if options.glossary[i][0] != term.text}
        return self._together(places, free, target) if places else None

    def spelled(self, options: GenerationOptions) -> GenerationOptions:
        """Return the options with bad words as what they are to the model: ids that never come.

        A word is ruled out as the tokenizer writes it, alone and behind a space or a sign. One
        token is ruled out everywhere, several where all but the last have come.
        """
        if not options.bad_words:
            return options
        ways = set[tuple[int, ...]]()
        for word in options.bad_words:
            ways |= self._remembered_words(word) if isinstance(word, str) else {word}
        return dataclasses.replace(
            options,
            suppressed_tokens=(*options.suppressed_tokens, *(w[0] for w in ways if len(w) == 1)),
            suppressed_sequences=tuple(sorted(way for way in ways if len(way) > 1)),
        )

    def _spelled(self, options: GenerationOptions, entry: int) -> Term:
        text = " ".join(options.glossary[entry][1].split())
        unusable = {*self._vocabulary.never, *options.suppressed_tokens}
        sequences = options.suppressed_sequences
        spellings = self._remembered(text)
        return Term(
            text,
            tuple(
                spelling
                for spelling in spellings
                if unusable.isdisjoint(spelling.ids)
                and not any(_holds(spelling.ids, sequence) for sequence in sequences)
            ),
        )

    @staticmethod
    def _refuse_unspelled(options: GenerationOptions, terms: Mapping[int, Term]) -> None:
        rule = "must be text that the vocabulary can spell, suppressed tokens and bad words aside"
        refuse(
            [
                violation(f"options.glossary[{i}].target", rule, options.glossary[i][1])
                for i, term in terms.items()
                if not term.length
            ]
        )

    def _together(
        self, places: Mapping[Term, list[tuple[int, int]]], free: Set[Term], target: Target
    ) -> Wanted:
        longest_first = sorted(places, key=lambda term: -len(term.text))
        return Wanted(
            tuple(longest_first),
            tuple(len(places[term]) for term in longest_first),
            tuple(math.inf if term in free else len(places[term]) for term in longest_first),
            tuple(_rows(target, places[term]) for term in longest_first),
            self._text(target.start[1:]),
        )

    def _spellings(self, text: str) -> tuple[Spelling, ...]:
        """Return the ways to write a term, as it is and as it begins a sentence."""
        ways = self._ways(text) | self._ways(capitalised(text))
        spellings = (Spelling(ids, self._behind_a_sign(ids)) for ids in sorted(ways))
        return tuple(s for s in spellings if _is(s.text, text))

    def _spellings_of_word(self, word: str) -> frozenset[tuple[int, ...]]:
        """Return the ways to write a word, as it is."""
        text = " ".join(word.split())
        ways = self._ways(text)
        return frozenset(w for w in ways if self._behind_a_sign(w).removeprefix(" ") == text)

    def _ways(self, form: str) -> set[tuple[int, ...]]:
        """Return what the tokenizer makes of a text, alone, behind a space and behind a sign."""
        ways = {self._encoded(form), self._encoded(" " + form), *self._glued(form)}
        return ways - {()}

    def _behind_a_sign(self, ids: Sequence[int]) -> str:
        """Return how ids read behind something else, with the space before them if there is one."""
        before = self._encoded(_CONTEXTS[0]) or ids  # not all tokenizers know signs
        return self._text((*before, *ids))[len(self._text(before)) :]

    def _encoded(self, text: str) -> tuple[int, ...]:
        """Return the ids of a text; none where the tokenizer has no symbols for it."""
        try:
            return tuple(self._tokenizer.encode_target(text))
        except InvalidArgumentError:
            return ()

    def _glued(self, form: str) -> Iterator[tuple[int, ...]]:
        """Give the ids of a form behind something else, where that keeps its own."""
        for context in _CONTEXTS:
            before, both = self._encoded(context), self._encoded(context + form)
            if both[: len(before)] == before and not words.inside(context + form, len(context)):
                yield both[len(before) :]

    def _text(self, ids: Sequence[int]) -> str:
        detokenizer = self._tokenizer.detokenizer()
        return "".join(map(detokenizer.add, ids)) + detokenizer.finish()


def occurring(glossary: Sequence[tuple[str, str]], source: str) -> dict[int, list[tuple[int, int]]]:
    """Return where the entries of a glossary occur in a source, without those that do not."""
    taken = list[tuple[int, int]]()
    found = dict[int, list[tuple[int, int]]]()
    lower = source.lower()
    for i in sorted(range(len(glossary)), key=lambda i: -len(glossary[i][0])):
        term = glossary[i][0]
        if term.split()[0].lower() not in lower:  # most do not: say so quickly
            continue
        for begin, end in words.occurrences(term, source, any_case=term == term.lower()):
            if all(end <= other[0] or other[1] <= begin for other in taken):
                taken.append((begin, end))
                found.setdefault(i, []).append((begin, end))
    return dict(sorted(found.items()))


def _rows(target: Target, places: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Return the rows of a target's memory that stand for parts of its source."""
    text = target.source_text
    spans = [(len(text[:begin].encode()), len(text[:end].encode())) for begin, end in places]
    return tuple(
        row
        for row, piece in enumerate(target.source)
        if any(piece.begin < end and begin < piece.end for begin, end in spans)
    )


def _holds(ids: Sequence[int], sequence: Sequence[int]) -> bool:
    """True if ids hold a sequence."""
    size = len(sequence)
    return any(ids[i : i + size] == sequence for i in range(len(ids) - size + 1))


def _is(spelled: str, text: str) -> bool:
    """True if tokens that read like this are a term; a space may go before it."""
    return spelled.removeprefix(" ") in (text, capitalised(text))
