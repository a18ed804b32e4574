"""Several replicas behind one port each: they come, drain, die and restart under load."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from functools import partial

import docker
import pytest
from docker.models.containers import Container

from splitformer.errors import UnavailableError
from splitformer_client import aio
from splitformer_client.session import AsyncSession
from splitformer_client.values import End
from tests.support.composed import Composed, assert_nothing_left, events, short_id, within
from tests.support.load import Load

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600, func_only=True)]
STREAMS = 16
SCALED = ("--scale", "encoder=2", "--scale", "decoder=3", "balancer")
GRACE_SECONDS = 45
"""STOP_GRACE in deploy/.env."""


@pytest.fixture(scope="module")
def composed(engine: docker.DockerClient, stand_ins: dict[str, str]) -> Iterator[Composed]:
    """One encoder and one decoder behind the balancer, at first."""
    running = Composed(engine, stand_ins, ("compose.yaml", "compose.scale.yaml"))
    try:
        running.up("balancer")
        yield running
    finally:
        running.down()


@pytest.fixture
def load(composed: Composed) -> Iterator[Load]:
    """Callers at work, who must notice nothing."""
    with Load(composed.encoder, composed.decoder, STREAMS) as callers:
        callers.wait_for(STREAMS)
        yield callers
        callers.wait_for(STREAMS)
    assert callers.failures == []
    assert callers.odd == []


def answered(container: Container, method: str) -> bool:
    """True once a service has done what is asked of it."""
    return any(f'"{method}"' in line and '"OK"' in line for line in events(container))


def test_both_sides_grow_under_load_with_one_flag(composed: Composed, load: Load) -> None:
    done = composed.verb("up", "--no-build", *SCALED)
    assert done.returncode == 0, done.stdout + done.stderr
    encoders, decoders = composed.containers("encoder"), composed.containers("decoder")
    assert (len(encoders), len(decoders)) == (2, 3)
    for each in encoders:
        within(30, partial(answered, each, "Encode"), f"{each.name} is never asked")
    for each in decoders:
        within(30, partial(answered, each, "Generate"), f"{each.name} is never asked")


class Steered:
    """A loop that lives for as long as its caller steers it, and the decoder that holds it.

    A plain generation of the default model is over in a fraction of a second.

    Attributes:
        replica: What the decoder calls itself.
        rounds: How often the loop has come to its end, and was sent back.
    """

    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        ((_, self.replica),) = session._metadata
        self.rounds = 0

    async def run(self, rounds: int) -> None:
        """Go round so many times, nearly twenty times a second."""
        async with self._session.interact(max_new_tokens=1, timeout=60) as loop:
            for _ in range(rounds):
                while not isinstance(await anext(loop), End):
                    pass
                self.rounds += 1
                await asyncio.sleep(0.05)
                await loop.rewind(0)
        await self._session.close()

    def is_on(self, container: Container) -> bool:
        """True if that container holds it."""
        return self.replica.startswith(short_id(container))


async def steered(client: aio.AsyncClient, count: int) -> list[Steered]:
    """Open sessions over one memory."""
    memory = await client.encode("Open the file.", delivery="reference")
    sessions = [await client.open_session(memory, language="de") for _ in range(count)]
    await client.release(memory)
    return [Steered(session) for session in sessions]


async def test_a_drained_replica_finishes_what_it_has_and_gets_nothing_new(
    composed: Composed, load: Load
) -> None:
    async with aio.connect(composed.encoder, composed.decoder) as client:
        (stream,) = await steered(client, 1)
        held = next(each for each in composed.containers("decoder") if stream.is_on(each))
        leaving = [held, composed.containers("encoder")[0]]
        reading = asyncio.create_task(stream.run(rounds=100))
        await asyncio.sleep(0.5)
        stopping = [asyncio.to_thread(each.stop, timeout=GRACE_SECONDS) for each in leaving]
        await asyncio.gather(reading, *stopping)
    assert stream.rounds == 100
    for each in leaving:
        each.reload()
        assert each.attrs["State"]["ExitCode"] == 0
        assert not any('"DRAINING"' in line for line in events(each)), "the balancer was late"
    await asyncio.to_thread(load.wait_for, STREAMS)
    for each in leaving:
        each.start()
    await asyncio.to_thread(composed.wait_healthy)


async def test_a_killed_decoder_takes_only_its_own_streams_with_it(composed: Composed) -> None:
    async with aio.connect(composed.encoder, composed.decoder) as client:
        streams = await steered(client, 9)
        victim = next(e for e in composed.containers("decoder") if streams[0].is_on(e))
        lost = [each for each in streams if each.is_on(victim)]
        kept = [each for each in streams if not each.is_on(victim)]
        assert kept
        running = {each: asyncio.create_task(each.run(rounds=80)) for each in streams}
        await asyncio.sleep(1)
        killed = time.monotonic()
        await asyncio.to_thread(victim.kill)
        outcomes = await asyncio.gather(*(running[e] for e in lost), return_exceptions=True)
        assert time.monotonic() - killed < 5
        assert [type(each) for each in outcomes] == [UnavailableError] * len(lost), outcomes
        for _ in range(20):  # at once, on the others
            assert (await client.translate("Open the file.", to="de"))[0].text
        await asyncio.gather(*(running[each] for each in kept))
        assert {each.rounds for each in kept} == {80}
    victim.start()
    await asyncio.to_thread(composed.wait_healthy)


def test_replacing_every_replica_loses_nothing(composed: Composed, load: Load) -> None:
    def replicas() -> list[Container]:
        return [*composed.containers("encoder"), *composed.containers("decoder")]

    before = {each.id for each in replicas()}
    done = composed.verb("roll", "encoder", "decoder")
    assert done.returncode == 0, done.stdout + done.stderr
    after = {each.id for each in replicas()}
    assert len(after) == len(before)
    assert before.isdisjoint(after)


async def test_the_balancer_finishes_what_it_has_and_then_does_not_wait_for_idle_callers(
    composed: Composed,
) -> None:
    (balancer,) = composed.containers("balancer")
    async with aio.connect(composed.encoder, composed.decoder) as client:
        (stream,) = await steered(client, 1)
        reading = asyncio.create_task(stream.run(rounds=20))
        await asyncio.sleep(0.5)
        stopping = asyncio.create_task(asyncio.to_thread(balancer.stop, timeout=GRACE_SECONDS))
        with contextlib.suppress(UnavailableError):  # closing its session is a call too many
            await reading
        assert stream.rounds == 20
        finished = time.monotonic()
        await stopping
        assert time.monotonic() - finished < 15
    balancer.reload()
    assert balancer.attrs["State"]["ExitCode"] == 0


def test_down_leaves_nothing_behind(composed: Composed) -> None:
    composed.down()
    assert_nothing_left(composed)
