"""The decoder's sessions: byte budget, expiry, records, one opening per request id, one user."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from decoder_service.budget import Budget, Reservation, Share
from decoder_service.sessions import Opened, Session, Sessions
from splitformer.errors import AbortedError, NotFoundError, ResourceExhaustedError
from splitformer.generation import EndReason, Produced
from tests.support.waiting import Clock


@pytest.fixture
def sessions(clock: Clock, ends: list[str]) -> Sessions:
    return Sessions(Budget(100), 10.0, 5.0, ends.append, clock)


def add(sessions: Sessions, size: int = 10) -> Session:
    sessions.budget.reserve(size, "memory")
    target: Any = SimpleNamespace(produced=[Produced(5, "x", -1.0)], end=None, finished_search=None)
    memory = Share(sessions.budget, size - 1)
    return sessions.add(target, "de", 3, 1, memory)


def running(sessions: Sessions, session: Session, leaving: bool = False) -> Any:
    left = asyncio.get_running_loop().create_future()
    generation: Any = SimpleNamespace(left=left, leaving=leaving)
    session.generation = generation
    left.add_done_callback(lambda _: setattr(session, "generation", None))
    return generation


def test_a_budget_is_exact() -> None:
    budget = Budget(10)
    budget.reserve(10, "memory")
    with pytest.raises(ResourceExhaustedError, match="needs 1 bytes, 0 of 10 are free") as caught:
        budget.reserve(1, "memory")
    assert caught.value.retry_after
    budget.release(4)
    budget.reserve(4, "memory")
    with pytest.raises(ResourceExhaustedError) as caught:
        budget.reserve(11, "memory")
    assert caught.value.retry_after is None
    assert budget.used == 10


def test_a_reservation_goes_back_unless_kept() -> None:
    budget = Budget(10)
    with Reservation(budget) as reservation:
        reservation.add(6, "memory")
        with pytest.raises(ResourceExhaustedError):
            reservation.add(6, "memory")
        assert budget.used == 6
    assert budget.used == 0
    with Reservation(budget) as reservation:
        reservation.add(9, "memory")
        reservation.keep(4)
    assert budget.used == 4


def test_an_idle_session_expires_to_the_moment(
    sessions: Sessions, clock: Clock, ends: list[str]
) -> None:
    session = add(sessions)
    assert len(session.id) == 32
    clock.now += 9.9
    assert sessions.get(session.id) is session
    assert sessions.expires_in(session) == pytest.approx(0.1)
    sessions.touch(session)
    clock.now += 9.9
    sessions.sweep()
    assert len(sessions) == 1
    clock.now += 0.1
    with pytest.raises(NotFoundError):
        sessions.get(session.id)
    assert ends == ["expired"]
    assert (len(sessions), sessions.budget.used) == (0, 0)


async def test_a_running_session_does_not_expire(sessions: Sessions, clock: Clock) -> None:
    session = add(sessions)
    running(sessions, session)
    clock.now += 1000
    sessions.sweep()
    assert sessions.get(session.id) is session
    assert sessions.expires_in(session) == 10.0
    assert sessions.recently_used(1.0)


def test_recently_used_is_what_it_says(sessions: Sessions, clock: Clock) -> None:
    assert not sessions.recently_used(1.0)
    add(sessions)
    assert sessions.recently_used(1.0)
    clock.now += 1.0
    assert not sessions.recently_used(1.0)


@pytest.mark.parametrize("how", ["ended", "closed", "expired", "failed"])
def test_a_session_let_go_is_remembered_for_a_while(
    sessions: Sessions, clock: Clock, ends: list[str], how: str
) -> None:
    session = add(sessions)
    session.end = EndReason.LENGTH
    sessions.close(session, how)
    sessions.close(session, how)
    assert ends == [how], "closing twice frees once"
    assert sessions.budget.used == 0
    record = sessions.record(session.id)
    assert record is not None
    assert record.produced == tuple(session.target.produced)
    assert record.seed == session.seed
    assert record.end is (EndReason.LENGTH if how == "ended" else None)
    clock.now += 5.0
    assert sessions.record(session.id) is None
    sessions.sweep()
    assert not sessions._records


def test_what_nobody_can_ask_for_is_not_remembered(sessions: Sessions, ends: list[str]) -> None:
    sessions.budget.reserve(10, "memory")
    target: Any = SimpleNamespace(produced=[Produced(5, "x", -1.0)], end=None, finished_search=None)
    session = sessions.add(target, "de", 3, 1, Share(sessions.budget, 9), named=False)
    assert sessions.get(session.id) is session
    assert sessions.close(session, "ended") == 10
    assert not sessions.knows(session.id)
    assert (ends, sessions.budget.used) == (["ended"], 0)


async def test_claiming_a_busy_session_is_refused(sessions: Sessions) -> None:
    session = add(sessions)
    generation = running(sessions, session)
    with pytest.raises(AbortedError) as caught:
        await sessions.claim(session)
    assert caught.value.reason == "SESSION_BUSY"
    generation.left.set_result(None)
    await asyncio.sleep(0)
    await sessions.claim(session)


async def test_claiming_waits_for_a_generation_that_leaves(
    sessions: Sessions, clock: Clock
) -> None:
    session = add(sessions)
    generation = running(sessions, session, leaving=True)
    claims = [asyncio.create_task(sessions.claim(session)) for _ in range(3)]
    await asyncio.sleep(0)
    claims[0].cancel()
    await asyncio.sleep(0)
    assert not generation.left.done(), "cancelling one who waits frees nothing"
    clock.now += 3
    generation.left.set_result(None)
    outcomes = await asyncio.gather(*claims, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert outcomes[1:] == [None, None]
    assert session.last_used == clock.now


async def test_claiming_a_session_closed_meanwhile_is_not_found(sessions: Sessions) -> None:
    session = add(sessions)
    generation = running(sessions, session, leaving=True)
    claim = asyncio.create_task(sessions.claim(session))
    await asyncio.sleep(0)
    sessions.close(session, "closed")
    generation.left.set_result(None)
    with pytest.raises(NotFoundError):
        await claim


async def opened(sessions: Sessions, request_id: str) -> Session:
    async with sessions.opening(request_id) as opening:
        if not opening.done():
            await asyncio.sleep(0)
            opening.set_result(Opened(add(sessions), 0.0, 0.0))
        return opening.result().session


async def test_one_request_id_opens_one_session(sessions: Sessions) -> None:
    together = await asyncio.gather(*(opened(sessions, "a") for _ in range(4)))
    assert len(set(map(id, together))) == 1
    assert await opened(sessions, "a") is together[0]
    assert await opened(sessions, "b") is not together[0]
    assert await opened(sessions, "") is not await opened(sessions, "")


async def test_a_failed_opening_passes_its_id_on(sessions: Sessions) -> None:
    entered = asyncio.Event()

    async def fails() -> None:
        async with sessions.opening("a"):
            entered.set()
            await asyncio.sleep(0)
            raise RuntimeError

    first = asyncio.create_task(fails())
    await entered.wait()
    later = await asyncio.gather(*(opened(sessions, "a") for _ in range(3)))
    with pytest.raises(RuntimeError):
        await first
    assert len(set(map(id, later))) == 1


async def test_an_id_is_free_again_once_its_session_is_gone(
    sessions: Sessions, clock: Clock
) -> None:
    first = await opened(sessions, "a")
    sessions.close(first, "closed")
    second = await opened(sessions, "a")
    assert second is not first
    clock.now += 10
    third = await opened(sessions, "a")
    assert third is not second, "it had expired, swept or not"
    sessions.close(third, "closed")
    sessions.sweep()
    assert not sessions._openings


async def test_a_repeated_opening_counts_as_use(sessions: Sessions, clock: Clock) -> None:
    session = await opened(sessions, "a")
    clock.now += 9
    assert await opened(sessions, "a") is session
    assert sessions.expires_in(session) == 10.0


def test_shared_bytes_go_back_with_the_last_holder() -> None:
    budget = Budget(100)
    budget.reserve(30, "memory")
    share = Share(budget, 30)
    share.hold()
    share.hold()
    assert (share.let_go(), budget.used) == (0, 30)
    assert (share.let_go(), budget.used) == (30, 0)
