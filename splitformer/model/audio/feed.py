"""Bytes as they arrive, as a file that a decoder on another thread can read."""

from __future__ import annotations

import threading
from collections.abc import Callable

from splitformer.errors import ResourceExhaustedError

AHEAD_BYTES = 4 * 2**20
"""Bytes that may wait to be read. A caller who sends what is asked for stays far below."""

_UNKNOWN_LENGTH = 2**40  # what a seek from the end counts from: nobody knows where the end is


class Feed:
    """A file of unknown length: writers append, one reader waits for what it wants to read.

    Until `sequential` is called everything is kept, as readers of headers jump about. A read that
    follows a jump beyond what has arrived finds the end of the file instead of waiting: the reader
    is looking for what may stand behind the audio, and has to do without.

    Args:
        changed: Guards everything here, and is notified whenever something has changed.
        starving: Called whenever the reader begins to wait.

    Attributes:
        starved: True while the reader waits for bytes.
        total: Bytes written so far.
    """

    def __init__(self, changed: threading.Condition, starving: Callable[[], None]) -> None:
        self._changed = changed
        self._starving = starving
        self._bytes = bytearray()
        self._first = 0  # position of the first byte kept
        self._position = 0
        self._ended = False
        self._sequential = False
        self.starved = False
        self.total = 0

    def write(self, chunk: bytes) -> None:
        """Append bytes.

        Raises:
            ResourceExhaustedError: AUDIO_TOO_FAR_AHEAD, more than `AHEAD_BYTES` would wait.
        """
        with self._changed:
            waiting = len(self._bytes) + len(chunk)
            if waiting > AHEAD_BYTES:
                raise ResourceExhaustedError(
                    f"chunk: at most {AHEAD_BYTES} bytes may wait to be decoded, got {waiting};"
                    " send no more than is asked for",
                    reason="AUDIO_TOO_FAR_AHEAD",
                )
            self._bytes += chunk
            self.total += len(chunk)
            self.starved = False
            self._changed.notify_all()

    def end(self) -> None:
        """Let the file end here."""
        with self._changed:
            self._ended = True
            self.starved = False
            self._changed.notify_all()

    def sequential(self) -> None:
        """Keep no longer what has been read."""
        with self._changed:
            self._sequential = True
            self._forget()

    def read(self, count: int) -> bytes:
        """Read at most so many bytes, waiting until they are there or the file has ended."""
        with self._changed:
            while not self._ended and self._first + len(self._bytes) < self._position + count:
                if self._position > self.total:
                    return b""
                self.starved = True
                self._starving()
                self._changed.wait()
            at = self._position - self._first
            part = bytes(self._bytes[at : at + count])
            self._position += len(part)
            if self._sequential:
                self._forget()
            return part

    def readinto(self, buffer: memoryview) -> int:
        """Read into a buffer; as `read`."""
        part = self.read(len(buffer))
        buffer[: len(part)] = part
        return len(part)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a position; to one that is not kept any more only if nothing is read there."""
        self._position = offset + (0, self._position, _UNKNOWN_LENGTH)[whence]
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def _forget(self) -> None:
        del self._bytes[: self._position - self._first]
        self._first = self._position
