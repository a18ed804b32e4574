"""Takes memories from encoders on the same host by mapping them; see `serving.sharing`."""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
import socket
from collections import deque
from collections.abc import Callable

from google.protobuf.message import DecodeError

from splitformer import wire
from splitformer.serving import sharing
from splitformer.v1 import encoder_service_pb2 as pb, tensor_pb2

_ANSWER_SECONDS = 1.0
_Answer = tuple[bytes, int | None]

CheckHeader = Callable[[tensor_pb2.MemoryHeader], None]
Found = tuple[tensor_pb2.MemoryHeader, mmap.mmap]


class SharedMemories:
    """Knows which encoders share memories with this process, and takes them.

    An encoder is known from the first memory that it sent, and forgotten when anything goes wrong.

    Args:
        wanted: Take any at all.
        fell_back: Called with one of `metrics.FALLBACKS` when an encoder that shares gives nothing.
    """

    def __init__(self, wanted: bool, fell_back: Callable[[str], object]) -> None:
        self._host = sharing.host_identity() if wanted else ""
        self._fell_back = fell_back
        self._names: dict[str, str] = {}
        self._lines: dict[str, _Line] = {}

    def learn(self, endpoint: str, offer: pb.SharedMemoryOffer) -> None:
        """Take note of what an encoder offers; nothing, if it is on another host."""
        if self._host and offer.socket and offer.host == self._host:
            self._names[endpoint] = offer.socket
        else:
            self._names.pop(endpoint, None)

    async def take(
        self, endpoint: str, memory_id: str, lease_id: str, check: CheckHeader
    ) -> Found | None:
        """Map a memory; None if it must be fetched another way.

        Args:
            endpoint: Of the encoder.
            memory_id: Which.
            lease_id: A lease that its owner holds.
            check: Called before any bytes are mapped; raises if the memory does not fit.
        """
        if endpoint not in self._names:
            return None
        try:
            packet, fd = await self._line(endpoint).ask(f"{memory_id} {lease_id}")
        except (OSError, TimeoutError) as error:
            self._forget(endpoint)
            self._fell_back("another_user" if isinstance(error, PermissionError) else "gone")
            return None
        if fd is None:
            self._fell_back("unknown_memory")
            return None
        try:
            return self._mapped(endpoint, packet, fd, check)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Close all connections; what is mapped stays."""
        for endpoint in list(self._names):
            self._forget(endpoint)

    def _line(self, endpoint: str) -> _Line:
        line = self._lines.get(endpoint)
        if line is None:
            line = self._lines[endpoint] = _Line(self._names[endpoint])
        return line

    def _forget(self, endpoint: str) -> None:
        self._names.pop(endpoint, None)
        line = self._lines.pop(endpoint, None)
        if line is not None:
            line.close()

    def _mapped(self, endpoint: str, packet: bytes, fd: int, check: CheckHeader) -> Found | None:
        header = _header(packet)
        if header is not None:
            check(header)
            size = wire.packed_bytes(header.dtype, header.shape)
            if _is_sound(fd, size):
                flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
                return header, mmap.mmap(fd, size, flags=flags, prot=mmap.PROT_READ)
        self._forget(endpoint)
        self._fell_back("unusable")
        return None


class _Line:
    """A connection to an encoder's socket; answers come in the order of the questions.

    Args:
        name: Of the socket.

    Raises:
        PermissionError: Another user's process is behind the name.
        OSError: Nobody is.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[_Answer]] = deque()
        self._socket = sharing.new_socket()
        try:
            self._socket.connect(sharing.address(name))
            if not sharing.is_own_user(self._socket):
                raise PermissionError("the socket is another user's")
        except OSError:
            self._socket.close()
            raise
        self._loop.add_reader(self._socket, self._receive)

    async def ask(self, request: str) -> _Answer:
        """Send a request; return its packet, and a file that is the caller's if there is one.

        Raises:
            OSError: The encoder has gone.
            TimeoutError: It does not answer.
        """
        self._socket.send(request.encode()[: sharing.MAX_REQUEST])
        answer: asyncio.Future[_Answer] = self._loop.create_future()
        self._waiting.append(answer)
        async with asyncio.timeout(_ANSWER_SECONDS):
            return await answer

    def close(self) -> None:
        """Close the connection; who still waits is told that the encoder has gone."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket)
        self._socket.close()
        for answer in self._waiting:
            if not answer.done():
                answer.set_exception(ConnectionResetError("the encoder has gone"))
        self._waiting.clear()

    def _receive(self) -> None:
        try:
            packet, fds, _, _ = socket.recv_fds(self._socket, sharing.MAX_ANSWER, 1)
        except BlockingIOError:
            return
        except OSError:
            packet, fds = b"", []
        fd = fds[0] if fds else None
        if not packet or not self._waiting:
            _close(fd)
            self.close()
            return
        answer = self._waiting.popleft()
        if answer.done():  # whoever asked has gone
            _close(fd)
        else:
            answer.set_result((packet, fd))


def _close(fd: int | None) -> None:
    if fd is not None:
        os.close(fd)


def _header(packet: bytes) -> tensor_pb2.MemoryHeader | None:
    """Read the header of an answer; None if there is none in it."""
    try:
        return tensor_pb2.MemoryHeader.FromString(packet[len(sharing.FOUND) :])
    except DecodeError:
        return None


def _is_sound(fd: int, size: int) -> bool:
    """True if a file is our own user's, has the right size, and nobody can change it any more."""
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:  # no such file at all
        return False
    status = os.fstat(fd)
    sealed = seals & sharing.SEALS == sharing.SEALS
    return sealed and status.st_uid == os.geteuid() and status.st_size == size
