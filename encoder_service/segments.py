"""A memory's bytes in one buffer, which a decoder on the same host may map where it lies."""

from __future__ import annotations

import fcntl
import mmap
import os
import resource
from collections.abc import Callable

from splitformer.serving import sharing
from splitformer.wire import Buffer

Room = bytearray | mmap.mmap
Fill = Callable[[Room], None]


class Segment:
    """The bytes of one memory.

    Args:
        data: The bytes, or None if they are in `fd`.
        fd: A sealed memfd, ours from now on; None if nobody else can map the bytes.

    Attributes:
        fd: As given; open for as long as the segment lives.
    """

    def __init__(self, data: Buffer | None, fd: int | None = None) -> None:
        self._data = data
        self.fd = fd
        self._size = os.fstat(fd).st_size if fd is not None else len(data or b"")

    def __len__(self) -> int:
        return self._size

    def __del__(self) -> None:
        if self.fd is not None:
            os.close(self.fd)

    @property
    def data(self) -> Buffer:
        """The bytes, for reading; mapped for as long as the result lives."""
        if self.fd is not None:
            return mmap.mmap(self.fd, self._size, prot=mmap.PROT_READ)
        return self._data or b""


class Segments:
    """Makes segments.

    At most half of the files that the process may have open are segments that can be shared; what
    is made beyond that, or where the system has no sealed files, is ordinary memory.

    Args:
        share: Make segments that can be shared.
    """

    def __init__(self, share: bool) -> None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most_files = soft // 2 if share and sharing.host_identity() else 0

    def make(self, size: int, fill: Fill) -> Segment:
        """Make a segment of `size` bytes, at least one, written by `fill`."""
        fd = self._open()
        if fd is None:
            room = bytearray(size)
            fill(room)
            return Segment(room)
        try:
            return _sealed(fd, size, fill)
        except BaseException:
            os.close(fd)
            raise

    def _open(self) -> int | None:
        """Open a file in memory; None if there can or should be none."""
        if not self._most_files:
            return None
        try:
            fd = os.memfd_create("splitformer-memory", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError:
            return None
        if fd < self._most_files:  # the lowest free number is given out: it says how many are open
            return fd
        os.close(fd)
        return None


def _sealed(fd: int, size: int, fill: Fill) -> Segment:
    os.truncate(fd, size)
    with mmap.mmap(fd, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE) as mapped:
        fill(mapped)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, sharing.SEALS)
    return Segment(None, fd)
