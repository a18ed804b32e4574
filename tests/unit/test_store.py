"""The encoder's store: memories live as long as their leases, within the budget."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings, strategies as st

from encoder_service.segments import Segment
from encoder_service.store import MemoryStore
from splitformer.errors import NotFoundError, ResourceExhaustedError
from splitformer.v1 import tensor_pb2
from tests.support.waiting import Clock

HEADER = tensor_pb2.MemoryHeader(model="m")


@pytest.fixture
def store(clock: Clock, ends: list[str]) -> MemoryStore:
    return MemoryStore(100, clock, ends.append)


def test_a_memory_is_kept_under_its_first_lease(store: MemoryStore) -> None:
    memory_id, lease = store.put(HEADER, Segment(b"12345"), 2.5)
    assert len(memory_id) == len(lease.lease_id) == 32
    assert lease.remaining_ms == 2500
    kept = store.get(memory_id)
    assert (kept.header, kept.segment.data) == (HEADER, b"12345")
    assert (len(store), store.leases, store.used_bytes) == (1, 1, 5)


def test_a_memory_goes_with_its_last_lease(store: MemoryStore, ends: list[str]) -> None:
    memory_id, first = store.put(HEADER, Segment(b"12345"), 10)
    second = store.grant(memory_id, 10)
    assert store.release(memory_id, first.lease_id) == 1
    assert store.get(memory_id).segment.data == b"12345"
    assert store.release(memory_id, second.lease_id) == 0
    with pytest.raises(NotFoundError, match="memory_id"):
        store.get(memory_id)
    assert (len(store), store.leases, store.used_bytes) == (0, 0, 0)
    assert ends == ["released", "released"]


def test_a_lease_expires_to_the_moment(store: MemoryStore, clock: Clock, ends: list[str]) -> None:
    memory_id, lease = store.put(HEADER, Segment(b"1"), 10)
    clock.now += 9.99
    store.get(memory_id)
    clock.now += 0.01
    with pytest.raises(NotFoundError) as caught:
        store.renew(memory_id, lease.lease_id, 10)
    assert caught.value.reason == "MEMORY_NOT_FOUND"
    assert ends == ["expired"]


def test_an_expired_lease_of_a_living_memory_is_gone(store: MemoryStore, clock: Clock) -> None:
    memory_id, first = store.put(HEADER, Segment(b"1"), 1)
    store.grant(memory_id, 10)
    clock.now += 1
    for call in (store.release, lambda m, i: store.renew(m, i, 5)):
        with pytest.raises(NotFoundError) as caught:
            call(memory_id, first.lease_id)
        assert caught.value.reason == "LEASE_NOT_FOUND"
    assert store.leases == 1


def test_a_renewed_lease_counts_from_now_and_once(store: MemoryStore, clock: Clock) -> None:
    memory_id, lease = store.put(HEADER, Segment(b"1"), 10)
    clock.now += 9
    renewed = store.renew(memory_id, lease.lease_id, 10)
    assert (renewed.lease_id, renewed.remaining_ms) == (lease.lease_id, 10_000)
    assert store.leases == 1
    clock.now += 9
    store.get(memory_id)


def test_leases_of_other_memories_do_not_fit(store: MemoryStore) -> None:
    first, lease = store.put(HEADER, Segment(b"1"), 10)
    second, _ = store.put(HEADER, Segment(b"1"), 10)
    with pytest.raises(NotFoundError) as caught:
        store.release(second, lease.lease_id)
    assert caught.value.reason == "LEASE_NOT_FOUND"
    assert store.get(first).segment.data == b"1"


def test_a_memory_is_its_owners_and_theirs_who_show_a_lease_of_the_owners(
    store: MemoryStore, clock: Clock
) -> None:
    memory_id, owners = store.put(HEADER, Segment(b"1"), 1, "ann")
    store.get(memory_id, "ann")
    decoders = store.grant(memory_id, 10, "decoder", owners.lease_id)
    for caller, lease_id in (("", ""), ("bob", ""), ("bob", decoders.lease_id)):
        with pytest.raises(NotFoundError):
            store.get(memory_id, caller, lease_id)
    clock.now += 1  # the owner's lease has expired, the decoder's has not
    with pytest.raises(NotFoundError):
        store.get(memory_id, "decoder", owners.lease_id)
    assert store.release(memory_id, decoders.lease_id, "decoder") == 0


def test_a_lease_is_its_holders(store: MemoryStore) -> None:
    memory_id, owners = store.put(HEADER, Segment(b"1"), 1, "ann")
    decoders = store.grant(memory_id, 10, "decoder", owners.lease_id)
    for caller, lease in (("bob", owners), ("bob", decoders), ("decoder", owners)):
        with pytest.raises(NotFoundError, match="memory_id"):
            store.renew(memory_id, lease.lease_id, 5, caller)
    with pytest.raises(NotFoundError, match="lease_id"):
        store.release(memory_id, decoders.lease_id, "ann")
    assert store.renew(memory_id, owners.lease_id, 5, "ann").lease_id == owners.lease_id


def test_the_budget_is_exact_and_says_when_room_comes(store: MemoryStore, clock: Clock) -> None:
    store.put(HEADER, Segment(bytes(60)), 10)
    store.put(HEADER, Segment(bytes(40)), 3)
    clock.now += 1
    with pytest.raises(ResourceExhaustedError) as caught:
        store.put(HEADER, Segment(b"1"), 10)
    assert caught.value.retry_after == pytest.approx(2)
    with pytest.raises(ResourceExhaustedError) as caught:
        store.put(HEADER, Segment(bytes(101)), 10)
    assert caught.value.retry_after is None, "it never fits"
    clock.now += 2
    store.put(HEADER, Segment(bytes(40)), 10)
    assert store.used_bytes == 100


def test_sweeping_lets_go_what_nobody_holds(store: MemoryStore, clock: Clock) -> None:
    for seconds in (1, 2, 3):
        store.put(HEADER, Segment(b"12"), seconds)
    clock.now += 2
    store.sweep()
    assert (len(store), store.leases, store.used_bytes) == (1, 1, 2)


@dataclass
class Model:
    """What the store must agree with: memory id -> (bytes, lease id -> expiry)."""

    memories: dict[str, tuple[int, dict[str, float]]] = field(default_factory=dict)

    def expire(self, now: float) -> int:
        ended = 0
        for memory_id, (_, leases) in list(self.memories.items()):
            for lease_id in [key for key, expiry in leases.items() if expiry <= now]:
                del leases[lease_id]
                ended += 1
            if not leases:
                del self.memories[memory_id]
        return ended

    @property
    def used(self) -> int:
        return sum(size for size, _ in self.memories.values())


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["put", "grant", "renew", "release", "wait", "sweep"]),
        st.integers(0, 5),
        st.integers(1, 40),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(ACTIONS)
def test_whatever_is_done_the_counts_are_right(actions: list[tuple[str, int, int]]) -> None:
    clock, ends, model = Clock(), Counter[str](), Model()
    store = MemoryStore(100, clock, lambda how: ends.update([how]))
    expired = released = 0
    for action, choice, amount in actions:
        expired += model.expire(clock.now)
        held = [(m, lease) for m, (_, leases) in model.memories.items() for lease in leases]
        memory_id, lease_id = held[choice % len(held)] if held else ("", "")
        if action == "put" and model.used + amount <= 100:
            memory_id, lease = store.put(HEADER, Segment(bytes(amount)), choice + 1)
            model.memories[memory_id] = amount, {lease.lease_id: clock.now + choice + 1}
        elif action == "grant" and held:
            lease = store.grant(memory_id, amount)
            model.memories[memory_id][1][lease.lease_id] = clock.now + amount
        elif action == "renew" and held:
            store.renew(memory_id, lease_id, amount)
            model.memories[memory_id][1][lease_id] = clock.now + amount
        elif action == "release" and held:
            del model.memories[memory_id][1][lease_id]
            assert store.release(memory_id, lease_id) == len(model.memories[memory_id][1])
            released += 1
        elif action == "wait":
            clock.now += choice
        store.sweep()
        expired += model.expire(clock.now)
        assert store.used_bytes == model.used <= 100
        assert len(store) == len(model.memories)
        assert store.leases == sum(len(leases) for _, leases in model.memories.values())
        assert ends == Counter(expired=expired, released=released)
