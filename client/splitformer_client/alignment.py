"""Which words of a source and its target belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from splitformer import words
from splitformer_client.spans import Places, Span


@dataclass(frozen=True, slots=True)
class Alignment:
    """Words that belong together.

    Attributes:
        source: A word of the source.
        target: A word of the target.
    """

    source: Span
    target: Span


class Aligned(Protocol):
    """A token of a target, as far as alignments need it."""

    @property
    def text(self) -> str:
        """The text that became certain with it."""

    @property
    def aligned_spans(self) -> tuple[Span, ...]:
        """The parts of the source that it aligns with."""


def align_words(source: str, tokens: Sequence[Aligned]) -> tuple[Alignment, ...]:
    """Return which words of a source and of its target belong together.

    They do if a token of the one aligns with a token of the other. Where a script puts no spaces
    between words, tokens stand for them.

    Args:
        source: The source's text.
        tokens: All tokens of the target, with what they align with.

    Returns:
        Pairs, each once, in the order of the target and then of the source.
    """
    target = "".join(token.text for token in tokens)
    sources, targets = Places(source), Places(target)
    pairs, waiting, end = set[tuple[Span, Span]](), list[Span](), 0
    for token in tokens:
        begin, end = end, end + len(token.text)
        waiting += token.aligned_spans
        word = _word(target, targets, begin, end)
        if word is None:  # its text comes with a later token, if it has one
            continue
        aligned = (_word(source, sources, span.begin, span.end) for span in waiting)
        pairs.update((word, each) for each in aligned if each is not None)
        waiting.clear()
    return tuple(Alignment(source, target) for target, source in sorted(pairs))


def _word(text: str, places: Places, begin: int, end: int) -> Span | None:
    """Return the words that a part of a text belongs to; None if there is only white space."""
    part = text[begin:end]
    if not part.strip():
        return None
    begin += len(part) - len(part.lstrip())
    return places.span(*words.around(text, begin, begin + len(part.strip())))
