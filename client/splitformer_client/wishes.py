"""What a translation should be like, and the options that see to it where it is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from splitformer_client.loops import loops
from splitformer_client.options import GenerationOptions, with_terms, without_repeats
from splitformer_client.placeholders import astray, placeholders
from splitformer_client.values import End, Token


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is looked at when a translation is complete.

    Attributes:
        keep_placeholders: It has the placeholders of its source.
        break_loops: It does not repeat itself.
    """

    keep_placeholders: bool = False
    break_loops: bool = False

    def bear_on(self, source: str) -> bool:
        """True if a translation of a source has to be complete before anything is given of it."""
        return self.break_loops or (self.keep_placeholders and bool(placeholders(source)))

    def flaws(self, source: str, text: str) -> tuple[int, int]:
        """Return how much is wrong with a translation: of how many kinds, and how badly."""
        lost = astray(source, text) if self.keep_placeholders else 0
        return (self.break_loops and loops(source, text)) + bool(lost), lost

    def stricter(self, source: str, text: str, options: GenerationOptions) -> GenerationOptions:
        """Return options under which what is wrong cannot be; the same if nothing is to be done."""
        if not self.flaws(source, text)[0]:
            return options
        if self.break_loops and loops(source, text):
            options = without_repeats(options)
        kept = placeholders(source) if self.keep_placeholders else ()
        return with_terms(options, kept) if kept else options


NO_WISHES = Wishes()


def text_of(events: Sequence[Token | End]) -> str:
    """Join the text of a whole generation."""
    return "".join(event.text for event in events)
