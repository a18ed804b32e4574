"""Memories kept for those who hold a lease on them.

A memory goes when its last lease has been released or has expired, so a holder that crashes strands
nothing. The bytes are counted against a budget when a memory is put in.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from encoder_service.segments import Segment
from splitformer.errors import NotFoundError, ResourceExhaustedError, shown
from splitformer.v1 import tensor_pb2


@dataclass(slots=True)
class _Lease:
    """Who holds it, and the time at which it expires."""

    holder: str
    expiry: float


@dataclass(slots=True)
class StoredMemory:
    """A memory, whose it is, the leases on it by their ids, and its holders so far.

    Under its key, if it has one, it is found by those who may share it.
    """

    header: tensor_pb2.MemoryHeader
    segment: Segment
    owner: str = ""
    leases: dict[str, _Lease] = field(default_factory=dict)
    granted: int = 0
    key: Hashable = None

    def is_open_to(self, caller: str, lease_id: str) -> bool:
        """True for its owner, and for others who show a lease of the owner's; see MemoryStore."""
        lease = self.leases.get(lease_id)
        shown_owners = lease is not None and lease.holder == self.owner
        return self.owner in ("", caller) or shown_owners


class MemoryStore:
    """Keeps memories under leases within a byte budget.

    Callers go by what they have proved; empty is one who has proved nothing. A memory belongs to
    the caller it was encoded for. To all others it is as if unknown, unless they show a lease of
    the owner's, and a lease is of use to its holder only. What has no owner is open to all who
    know its id.

    Args:
        budget_bytes: Most bytes kept at once.
        clock: Seconds, monotonic.
        lease_ended: Called with "released" or "expired" for every lease that ends.
        memory_gone: Called when a memory goes, with the number of leases besides its first.

    Attributes:
        used_bytes: Bytes kept.
        reserved_bytes: Bytes of memories that are just being made.
        leases: Leases held on all memories.
    """

    def __init__(
        self,
        budget_bytes: int,
        clock: Callable[[], float] = time.monotonic,
        lease_ended: Callable[[str], None] = lambda how: None,
        memory_gone: Callable[[int], None] = lambda fetches: None,
    ) -> None:
        self.budget_bytes = budget_bytes
        self.used_bytes = 0
        self.reserved_bytes = 0
        self.leases = 0
        self._clock = clock
        self._lease_ended = lease_ended
        self._memory_gone = memory_gone
        self._memories: dict[str, StoredMemory] = {}
        self._by_key: dict[Hashable, str] = {}

    def __len__(self) -> int:
        return len(self._memories)

    @contextmanager
    def room(self, count: int) -> Iterator[None]:
        """Keep room for a memory while it is being made and handed over.

        Raises:
            ResourceExhaustedError: OVER_BUDGET; says when the next lease expires, unless the memory
                would not even fit into an empty store.
        """
        self._check_fits(count)
        self.reserved_bytes += count
        try:
            yield
        finally:
            self.reserved_bytes -= count

    def put_into_room(
        self,
        header: tensor_pb2.MemoryHeader,
        segment: Segment,
        seconds: float,
        key: Hashable = None,
        owner: str = "",
    ) -> tuple[str, tensor_pb2.Lease]:
        """Keep a memory that `room` has been kept for; never refused. Returns as `put`.

        Args:
            header: Of the memory.
            segment: Its bytes.
            seconds: How long its first lease lasts.
            key: What `find` finds it by, unless another memory has the key; None: nothing.
            owner: The caller it was encoded for.
        """
        memory_id, lease = self._put(header, segment, seconds, owner)
        if key is not None and key not in self._by_key:
            self._memories[memory_id].key = key
            self._by_key[key] = memory_id
        return memory_id, lease

    def find(self, key: Hashable) -> str | None:
        """Return the id of the memory kept under a key; None if there is none."""
        memory_id = self._by_key.get(key)
        if memory_id is not None:
            self._expire(memory_id)
        return self._by_key.get(key)

    def put(
        self, header: tensor_pb2.MemoryHeader, segment: Segment, seconds: float, owner: str = ""
    ) -> tuple[str, tensor_pb2.Lease]:
        """Keep a memory and grant its first lease; return the memory's id and the lease.

        Raises:
            ResourceExhaustedError: OVER_BUDGET, as `room`.
        """
        self._check_fits(len(segment))
        return self._put(header, segment, seconds, owner)

    def _put(
        self, header: tensor_pb2.MemoryHeader, segment: Segment, seconds: float, owner: str
    ) -> tuple[str, tensor_pb2.Lease]:
        memory_id = secrets.token_hex(16)
        memory = self._memories[memory_id] = StoredMemory(header, segment, owner)
        self.used_bytes += len(segment)
        return memory_id, self._grant(memory, seconds, owner)

    def get(self, memory_id: str, caller: str = "", lease_id: str = "") -> StoredMemory:
        """Return a memory that is the caller's, or of whose owner the caller shows a lease.

        Raises:
            NotFoundError: MEMORY_NOT_FOUND, it is unknown, released, expired or somebody else's.
        """
        self._expire(memory_id)
        memory = self._memories.get(memory_id)
        if memory is None or not memory.is_open_to(caller, lease_id):
            raise NotFoundError(
                f"memory_id: is unknown, released or expired, got {shown(memory_id)}",
                reason="MEMORY_NOT_FOUND",
            )
        return memory

    def grant(
        self, memory_id: str, seconds: float, caller: str = "", lease_id: str = ""
    ) -> tensor_pb2.Lease:
        """Grant a caller one more lease on a memory; raises as `get`."""
        return self._grant(self.get(memory_id, caller, lease_id), seconds, caller)

    def share(self, memory_id: str, seconds: float, owner: str = "") -> tensor_pb2.Lease:
        """Grant its owner one more lease on a memory, which is no fetch; raises as `get`."""
        memory = self.get(memory_id, owner)
        memory.granted -= 1
        return self._grant(memory, seconds, owner)

    def count_fetch(self, memory: StoredMemory) -> None:
        """Count a fetch that needs no lease, as whoever fetched holds the bytes themselves."""
        memory.granted += 1

    def renew(
        self, memory_id: str, lease_id: str, seconds: float, caller: str = ""
    ) -> tensor_pb2.Lease:
        """Let a lease last `seconds` from now; NotFoundError if memory or lease is gone."""
        memory = self._leased(memory_id, lease_id, caller)
        memory.leases[lease_id].expiry = self._clock() + seconds
        return tensor_pb2.Lease(lease_id=lease_id, remaining_ms=int(seconds * 1000))

    def release(self, memory_id: str, lease_id: str, caller: str = "") -> int:
        """End a lease; return how many others hold the memory. NotFoundError as for `renew`."""
        memory = self._leased(memory_id, lease_id, caller)
        self._end(memory, lease_id, "released")
        self._drop_if_free(memory_id)
        return len(memory.leases)

    def sweep(self) -> None:
        """Let go what nobody holds any more."""
        for memory_id in list(self._memories):
            self._expire(memory_id)

    def _check_fits(self, count: int) -> None:
        self.sweep()
        free = self.budget_bytes - self.used_bytes - self.reserved_bytes
        if count > free:
            raise ResourceExhaustedError(
                f"memory: needs {count} bytes, {free} of {self.budget_bytes} are free",
                retry_after=self._next_expiry() if count <= self.budget_bytes else None,
            )

    def _leased(self, memory_id: str, lease_id: str, caller: str) -> StoredMemory:
        """Return a memory on which the caller holds a lease.

        Raises:
            NotFoundError: LEASE_NOT_FOUND, or MEMORY_NOT_FOUND, also to those it is not open to.
        """
        self._expire(memory_id)
        memory = self._memories.get(memory_id)
        lease = memory.leases.get(lease_id) if memory else None
        if memory and lease and lease.holder in ("", caller):
            return memory
        self.get(memory_id, caller)
        raise NotFoundError(
            f"lease_id: is unknown, released or expired, got {shown(lease_id)}",
            reason="LEASE_NOT_FOUND",
        )

    def _grant(self, memory: StoredMemory, seconds: float, holder: str) -> tensor_pb2.Lease:
        lease_id = secrets.token_hex(16)
        self.leases += 1
        memory.granted += 1
        memory.leases[lease_id] = _Lease(holder, self._clock() + seconds)
        return tensor_pb2.Lease(lease_id=lease_id, remaining_ms=int(seconds * 1000))

    def _expire(self, memory_id: str) -> None:
        memory, now = self._memories.get(memory_id), self._clock()
        if memory is None:
            return
        for lease_id in [key for key, lease in memory.leases.items() if lease.expiry <= now]:
            self._end(memory, lease_id, "expired")
        self._drop_if_free(memory_id)

    def _end(self, memory: StoredMemory, lease_id: str, how: str) -> None:
        del memory.leases[lease_id]
        self.leases -= 1
        self._lease_ended(how)

    def _drop_if_free(self, memory_id: str) -> None:
        if not self._memories[memory_id].leases:
            memory = self._memories.pop(memory_id)
            if memory.key is not None:
                del self._by_key[memory.key]
            self.used_bytes -= len(memory.segment)
            self._memory_gone(memory.granted - 1)

    def _next_expiry(self) -> float:
        expiries = [
            lease.expiry for memory in self._memories.values() for lease in memory.leases.values()
        ]
        return max(0.1, min(expiries, default=self._clock()) - self._clock())
