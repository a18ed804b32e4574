"""Stop strings: where the text ends, and which tokens may still turn out to lie beyond that.

A stop string may begin in one token and end in a later one. Until that is decided, the tokens it
would touch are held back, so that nobody is shown text that does not count.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from splitformer.generation.tokens import Produced
from splitformer.model.tokenizer import Detokenizer


class Stops:
    """Follows the text of a target.

    Args:
        strings: None of them empty.

    Attributes:
        at: Where the text ends: where the first stop string to be complete begins; None: nowhere.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = strings
        self._text = ""
        self._ends: list[int] = []  # per token
        self.at: int | None = None

    def follow(self, produced: Sequence[Produced]) -> None:
        """Take in the tokens that have been added since the last time."""
        for token in produced[len(self._ends) :]:
            self._add(token.text)

    @property
    def certain(self) -> int:
        """How many of the tokens will not be touched by a stop string any more, or already are."""
        if self.at is not None:
            return len(self._ends)
        begun = max([self._begun(string) for string in self._strings], default=0)
        return bisect_right(self._ends, len(self._text) - begun) if begun else len(self._ends)

    def cut(self, index: int, token: Produced) -> Produced:
        """Return a token without what lies beyond the end of the text."""
        if self.at is None or self._ends[index] <= self.at:
            return token
        begin = self._ends[index] - len(token.text)
        return token._replace(text=token.text[: max(0, self.at - begin)])

    def _add(self, piece: str) -> None:
        before = len(self._text)
        self._text += piece
        self._ends.append(len(self._text))
        if self.at is None:
            found = [self._text.find(s, max(0, before - len(s) + 1)) for s in self._strings]
            self.at = min((place for place in found if place >= 0), default=None)

    def _begun(self, string: str) -> int:
        """How many characters of a stop string the text ends with, at most, but for a whole one."""
        text = self._text
        place = text.find(string[0], max(0, len(text) - len(string) + 1))
        while place >= 0 and not string.startswith(text[place:]):
            place = text.find(string[0], place + 1)
        return len(text) - place if place >= 0 else 0


class Said:
    """The text of a hypothesis that may be continued in several ways.

    Args:
        detokenizer: Has been through its tokens.
        text: Of its tokens.
        before: How much of the text was there before the last token.
    """

    def __init__(self, detokenizer: Detokenizer, text: str, before: int = 0) -> None:
        self._detokenizer = detokenizer
        self._text = text
        self._before = before

    @property
    def text(self) -> str:
        """The text."""
        return self._text

    def add(self, token: int) -> Said:
        """Return the text with one more token."""
        detokenizer = self._detokenizer.fork()
        return Said(detokenizer, self._text + detokenizer.add(token), len(self._text))

    def stopped(self, strings: Sequence[str]) -> bool:
        """True if the last token has completed a stop string."""
        return any(s in self._text[max(0, self._before - len(s) + 1) :] for s in strings)
