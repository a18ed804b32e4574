"""Puts the pieces of a long text back in order: one stream of tokens for each language."""

from __future__ import annotations

import dataclasses
import heapq
from collections import deque
from collections.abc import Iterator, Sequence

from splitformer_client.sentences import separator_in
from splitformer_client.values import End, EndReason, Hypothesis, Timings, Token


class Rejoiner:
    """Takes events of all pieces as they come and gives them in order, numbered through.

    White space between pieces goes to the text of the token that follows it.

    Args:
        language: Target language.
        separators: White space after each piece in the source, one entry per piece.
    """

    def __init__(self, language: str, separators: Sequence[str]) -> None:
        self._separators = [separator_in(language, space) for space in separators[:-1]]
        self._waiting: list[deque[Token | End]] = [deque() for _ in separators]
        self._ends: list[End] = []
        self._tokens = 0
        self._text = ""  # to put before the next token

    def add(self, piece: int, event: Token | End) -> Iterator[Token | End]:
        """Take one event of one piece; gives what is in order now."""
        self._waiting[piece].append(event)
        while not self._done and self._waiting[len(self._ends)]:
            next_event = self._waiting[len(self._ends)].popleft()
            if isinstance(next_event, Token):
                yield self._numbered(next_event)
            else:
                yield from self._ended(next_event)

    @property
    def _done(self) -> bool:
        return len(self._ends) == len(self._waiting)

    def _numbered(self, token: Token) -> Token:
        """The token at its place in the whole; the very same if there is only one piece."""
        index, self._tokens = self._tokens, self._tokens + 1
        if index == token.index and not self._text:
            return token
        text, self._text = self._text + token.text, ""
        return dataclasses.replace(token, index=index, text=text)

    def _ended(self, end: End) -> Iterator[End]:
        """Go on to the next piece, or give the end of the whole."""
        self._ends.append(end)
        self._text += end.text
        if self._done:
            yield joined(self._ends, self._text, self._separators)
        else:
            self._text += self._separators[len(self._ends) - 1]


def joined(ends: Sequence[End], text: str, separators: Sequence[str] = ()) -> End:
    """Make one end of the ends of all pieces: sums, and EOS only if every piece reached it."""
    if len(ends) == 1:
        return ends[0]
    return End(
        reason=_reason([end.reason for end in ends]),
        tokens=sum(end.tokens for end in ends),
        total_tokens=sum(end.total_tokens for end in ends),
        steps=sum(end.steps for end in ends),
        drafted_tokens=sum(end.drafted_tokens for end in ends),
        accepted_tokens=sum(end.accepted_tokens for end in ends),
        seed=ends[0].seed,
        log_probability=sum(end.log_probability for end in ends),
        text=text,
        timings=_joined_timings(ends),
        hypotheses=_best(ends, separators),
    )


def _best(ends: Sequence[End], separators: Sequence[str]) -> tuple[Hypothesis, ...]:
    """Put together hypotheses of the pieces: those with the best sums, as many as a piece has.

    The best one is made of the best ones. There is none unless every piece has some.
    """
    most = max(len(end.hypotheses) for end in ends)
    best = ends[0].hypotheses
    for end, separator in zip(ends[1:], separators, strict=True):
        pairs = ((first, second) for first in best for second in end.hypotheses)
        best = tuple(
            heapq.nlargest(
                most, (_behind(*pair, separator) for pair in pairs), key=lambda each: each.score
            )
        )
    return best


def _behind(first: Hypothesis, second: Hypothesis, separator: str) -> Hypothesis:
    tokens = [
        dataclasses.replace(token, index=i)
        for i, token in enumerate(second.tokens, len(first.tokens))
    ]
    if tokens:
        tokens[0] = dataclasses.replace(tokens[0], text=separator + tokens[0].text)
    return Hypothesis(
        first.text + separator + second.text,
        (*first.tokens, *tokens),
        first.score + second.score,
        _reason([first.reason, second.reason]),
    )


def _reason(reasons: Sequence[EndReason]) -> EndReason:
    return next((reason for reason in reasons if reason is not EndReason.EOS), EndReason.EOS)


def _joined_timings(ends: Sequence[End]) -> Timings:
    """Waiting until the first token of the first piece; work summed; steps at their mean."""
    steps = sum(end.steps for end in ends) or 1
    return Timings(
        queue=ends[0].timings.queue,
        first_token=ends[0].timings.first_token,
        step=sum(end.timings.step * end.steps for end in ends) / steps,
        total=sum(end.timings.total for end in ends),
    )
