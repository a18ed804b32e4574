"""Groups mined pairs into training examples: one English string, its translations, a weight."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from training.mine import Pair
from training.recipe import LANGUAGES, Genre, Source
from training.split import Part, Splitter

Translations = dict[str, str]


@dataclass(slots=True)
class Example:
    """One English string of one source with at most one translation per language."""

    english: str
    source: str
    genre: Genre
    translations: Translations = field(default_factory=dict)


def examples(
    pairs: Iterable[Pair], splitter: Splitter, sources: Iterable[Source]
) -> dict[Part, list[Example]]:
    """Returns the examples of each part; a translation is the one most often used.

    An English string that several sources hold belongs to the first of them in the recipe, and
    keeps that source's translation where there is one.
    """
    genres = {source.name: source.genre for source in sources}
    parts: dict[Part, dict[str, Example]] = {part: {} for part in Part}
    votes: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for pair in pairs:
        part = splitter.part(pair)
        if part is None:
            continue
        example = parts[part].setdefault(
            pair.english, Example(pair.english, pair.source, genres[pair.source])
        )
        # Votes of the example's own source outweigh all others.
        weight = 1000 if pair.source == example.source else 1
        votes[pair.english, pair.language][pair.translation] += weight * pair.uses
    for found in parts.values():
        for example in found.values():
            _settle(example, votes)
    return {part: list(found.values()) for part, found in parts.items()}


def _settle(example: Example, votes: dict[tuple[str, str], Counter[str]]) -> None:
    for language in LANGUAGES:
        counter = votes.get((example.english, language))
        if counter:
            example.translations[language] = counter.most_common(1)[0][0]
