"""What was said when: a window's tokens, cut into segments at the times among them.

Times come in pairs, one before and one behind each phrase. A phrase whose second time is missing at
the end of a window was cut off there: it is heard again, in the next window, which starts behind
the last phrase that is complete.
"""

from __future__ import annotations

from splitformer_client.listening import Window
from splitformer_client.values import End, Segment, Token


class Phrases:
    """Follows the tokens of one window.

    Args:
        window: Which window.
        first_time: Token of the window's beginning; None: no times are marked.
        time_seconds: From one time token to the next.

    Attributes:
        next_start: Where the next window starts, once this one has ended.
    """

    def __init__(self, window: Window, first_time: int | None, time_seconds: float) -> None:
        self._window = window
        self._first_time = first_time
        self._time_seconds = time_seconds
        self._tokens: list[Token] = []
        self._text = ""
        self._opened = window.start
        self._closing: float | None = None  # a time behind text: half of a pair, so far
        self._closed: float | None = None
        self.next_start = window.end

    def add(self, token: Token) -> Segment | None:
        """Take in a token; return the segment that it completes."""
        self._text += token.text
        time = self._time_of(token)
        if time is None:
            self._tokens.append(token)
            self._closing = None
        elif self._closing is not None:
            segment = self._segment(self._closing)
            self._opened, self._closed, self._closing = time, self._closing, None
            return segment
        elif self._tokens:
            self._closing = time
        else:
            self._opened = time
        return None

    def finish(self, end: End) -> Segment | None:
        """Take in the end; return what is left, unless it was cut off behind other phrases."""
        self._text += end.text
        if self._closing is not None:
            return self._segment(self._closing)
        if self._closed is None:
            return self._segment(self._window.end) if self._tokens else None
        if self._closed > self._window.start:
            self.next_start = self._closed
        return None

    def _segment(self, end: float) -> Segment:
        segment = Segment(self._opened, end, self._text, tuple(self._tokens))
        self._tokens, self._text = [], ""
        return segment

    def _time_of(self, token: Token) -> float | None:
        if self._first_time is None or token.id < self._first_time:
            return None
        time = self._window.start + (token.id - self._first_time) * self._time_seconds
        return min(time, self._window.end)
