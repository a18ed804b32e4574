"""One audio on its way in: bytes from one side, windows of samples to the other.

Whoever wants a window says where it starts, and what lies before it is let go. Decoding happens on
a thread of its own, which stops while it is a window ahead. So the memory that an audio takes does
not depend on its length.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from splitformer.errors import InternalError, InvalidArgumentError, SplitformerError
from splitformer.model.audio.features import Samples
from splitformer.model.audio.feed import Feed
from splitformer.model.audio.sound import Form, blocks

_logger = logging.getLogger("splitformer.audio")


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A piece of an audio.

    Attributes:
        start: Its first sample's place in the audio.
        samples: At most a window, fewer at the end.
        last: True if the audio ends within it.
    """

    start: int
    samples: Samples
    last: bool


class Track:
    """An audio being received. Every method may be called on any thread and none waits.

    Args:
        form: How its bytes are to be read.
        rate: Samples per second wanted.
        window: Samples of a window.
        changed: Called, on some thread, whenever a window may have become complete, more bytes are
            needed or the audio turned out to be bad.
    """

    def __init__(self, form: Form, rate: int, window: int, changed: Callable[[], None]) -> None:
        self._form, self._rate, self._window = form, rate, window
        self._tell = changed
        self._changed = threading.Condition()
        self._feed = Feed(self._changed, changed)
        self._parts: list[Samples] = []
        self._first = 0  # place of the first sample kept
        self._count = 0  # samples kept
        self._start = 0
        self._ended = self._closed = False
        self._error: SplitformerError | None = None
        self._thread = threading.Thread(target=self._decode, name="audio", daemon=True)
        self._thread.start()

    def feed(self, chunk: bytes) -> None:
        """Take more bytes; ResourceExhaustedError AUDIO_TOO_FAR_AHEAD if too many wait."""
        self._feed.write(chunk)

    def end(self) -> None:
        """Take it that no more bytes follow."""
        self._feed.end()

    def seek(self, start: int) -> None:
        """Let the next window start here, and let go of what lies before it.

        Raises:
            InvalidArgumentError: BAD_SEEK, it lies before the last one.
        """
        if start < self._start:
            raise InvalidArgumentError.of(
                "seek.start_seconds",
                f"must be at least {self._start / self._rate:g}, the last one's",
                start / self._rate,
                reason="BAD_SEEK",
            )
        with self._changed:
            self._start = start
            self._forget()
            self._changed.notify_all()

    @property
    def starved(self) -> bool:
        """True while decoding waits for bytes."""
        return self._feed.starved

    def window(self) -> Window | None:
        """Return the window that starts where the last seek said; None while it is incomplete.

        It is complete once it is known whether anything follows it.

        Raises:
            InvalidArgumentError: The audio is bad, is empty (EMPTY_AUDIO), or ends before the
                window starts (BAD_SEEK).
        """
        with self._changed:
            if self._error is not None:
                raise self._error
            if not self._ended and self._count <= self._window:
                return None
            total = self._first + self._count
            if self._ended and self._start >= total:
                raise self._nothing(total)
            kept = np.concatenate(self._parts)[: self._window]
            return Window(self._start, kept, self._start + self._window >= total)

    def close(self) -> None:
        """Stop decoding and let go of everything."""
        with self._changed:
            self._closed = True
            self._parts.clear()
            self._changed.notify_all()
        self._feed.end()
        self._thread.join()

    def _decode(self) -> None:
        try:
            for samples in blocks(self._feed, self._form, self._rate):
                self._append(samples)
                if self._closed:
                    return
        except SplitformerError as error:
            self._error = error
        except Exception:
            _logger.exception("decoding failed")
            self._error = InternalError("audio: decoding failed; the log has the details")
        finally:
            self._ended = True
            self._tell()

    def _append(self, samples: Samples) -> None:
        """Keep samples, and wait while there are more than a window of them."""
        with self._changed:
            self._parts.append(samples)
            self._count += len(samples)
            self._forget()
            while self._count > self._window and not self._closed:
                self._tell()
                self._changed.wait()

    def _forget(self) -> None:
        """Let go of samples before the start."""
        while self._parts and self._first < self._start:
            gone = min(len(self._parts[0]), self._start - self._first)
            self._parts[0] = self._parts[0][gone:]
            self._first += gone
            self._count -= gone
            if not len(self._parts[0]):
                del self._parts[0]

    def _nothing(self, total: int) -> InvalidArgumentError:
        if not total:
            return InvalidArgumentError.of(
                "audio", "must hold samples", total, reason="EMPTY_AUDIO"
            )
        return InvalidArgumentError.of(
            "seek.start_seconds",
            f"must lie within the audio, which ends at {total / self._rate:g}",
            self._start / self._rate,
            reason="BAD_SEEK",
        )
