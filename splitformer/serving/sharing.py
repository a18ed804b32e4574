"""Memories between processes of one host and one user: what both sides of the socket agree on.

An encoder listens on an abstract Unix socket with a random name, and tells the name and its host in
the header of every fetched memory. A decoder of the same host connects, sends memory ids, one a
packet, and gets one packet for each, in their order: `FOUND` and the serialised `MemoryHeader`,
with a file descriptor beside it, or `NOT_FOUND` alone. The descriptor is that of a sealed memfd:
nobody can change it or cut it short, and it lives as long as somebody has it open or mapped.

Each side asks the kernel who the other one is, and has nothing to do with another user's process.
Abstract names belong to a network namespace, so containers with networks of their own never meet.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import struct
from pathlib import Path

FOUND = b"+"
NOT_FOUND = b"-"

MAX_REQUEST = 128
MAX_ANSWER = 128 * 1024
"""Longest packet with a header; a memory whose header is longer goes another way."""

SEALS = (
    (fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
    if hasattr(fcntl, "F_SEAL_SEAL")
    else 0
)

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NETWORK = Path("/proc/self/ns/net")
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


def host_identity() -> str:
    """Name this boot of this host and this network namespace; empty where sharing cannot work."""
    if not (SEALS and hasattr(os, "memfd_create") and hasattr(socket, "SO_PEERCRED")):
        return ""
    try:
        text = f"{_BOOT.read_text().strip()}/{_NETWORK.stat().st_ino}"
    except OSError:
        return ""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def is_own_user(peer: socket.socket) -> bool:
    """True if the process behind a connected Unix socket is of our own user."""
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(credentials)
    return bool(uid == os.geteuid())


def new_socket() -> socket.socket:
    """A Unix socket that keeps packets apart and never blocks."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.setblocking(False)
    return made


def address(name: str) -> str:
    """Where the socket of a name is, in the abstract namespace."""
    return f"\0{name}"
