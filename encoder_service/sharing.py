"""Hands memories to decoders on the same host, as files that they map; see `serving.sharing`."""

from __future__ import annotations

import asyncio
import errno
import logging
import secrets
import socket
from collections.abc import Callable

from encoder_service.store import MemoryStore, StoredMemory
from splitformer.errors import NotFoundError
from splitformer.serving import sharing
from splitformer.serving.logs import log
from splitformer.v1 import encoder_service_pb2 as pb

_BACKLOG = 64
_logger = logging.getLogger("splitformer.sharing")


class SharingServer:
    """Listens for decoders until it is closed; lives on the event loop.

    Args:
        store: Where the memories are.
        shared: Called with the size of every memory handed over.

    Attributes:
        offer: What to tell decoders.

    Raises:
        OSError: There are no such sockets here.
    """

    def __init__(self, store: MemoryStore, shared: Callable[[int], object]) -> None:
        self._store = store
        self._shared = shared
        self._loop = asyncio.get_running_loop()
        self._peers: set[socket.socket] = set()
        name = f"splitformer-{secrets.token_hex(16)}"
        self._socket = sharing.new_socket()
        self._socket.bind(sharing.address(name))
        self._socket.listen(_BACKLOG)
        self._loop.add_reader(self._socket, self._accept)
        self.offer = pb.SharedMemoryOffer(host=sharing.host_identity(), socket=name)

    def close(self) -> None:
        """Stop listening and let go of all decoders; what they have mapped stays theirs."""
        if self._socket.fileno() < 0:
            return
        for one in (self._socket, *self._peers):
            self._loop.remove_reader(one)
            one.close()
        self._peers.clear()

    def _accept(self) -> None:
        try:
            peer, _ = self._socket.accept()
        except OSError:  # it has gone again, or we have no file left for it
            return
        if not sharing.is_own_user(peer):
            log(_logger, logging.WARNING, "a process of another user asked for memories")
            peer.close()
            return
        peer.setblocking(False)
        self._peers.add(peer)
        self._loop.add_reader(peer, self._answer, peer)

    def _answer(self, peer: socket.socket) -> None:
        """Answer one packet; a peer that has gone, or does not read, is let go."""
        try:
            request = peer.recv(sharing.MAX_REQUEST)
            if request:
                self._send(peer, request.decode("ascii", "replace"))
                return
        except OSError:
            pass
        self._loop.remove_reader(peer)
        self._peers.discard(peer)
        peer.close()

    def _send(self, peer: socket.socket, request: str) -> None:
        memory = self._asked_for(request)
        packet = b"" if memory is None else sharing.FOUND + memory.header.SerializeToString()
        fd = None if memory is None else memory.segment.fd
        if memory is None or fd is None or len(packet) > sharing.MAX_ANSWER:
            peer.send(sharing.NOT_FOUND)
            return
        try:
            socket.send_fds(peer, [packet], [fd])
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            peer.send(sharing.NOT_FOUND)
            return
        self._store.count_fetch(memory)
        self._shared(len(memory.segment))

    def _asked_for(self, request: str) -> StoredMemory | None:
        """Return the memory of a request, an id and a lease of its owner's; None if none is."""
        memory_id, _, lease_id = request.partition(" ")
        try:
            return self._store.get(memory_id, lease_id=lease_id)
        except NotFoundError:
            return None


def start_sharing(
    wanted: bool, store: MemoryStore, shared: Callable[[int], object]
) -> SharingServer | None:
    """Listen for decoders of this host if that is wanted and possible here."""
    if not (wanted and sharing.host_identity()):
        return None
    try:
        return SharingServer(store, shared)
    except OSError as error:
        log(_logger, logging.WARNING, "memories are not shared on this host", why=str(error))
        return None
