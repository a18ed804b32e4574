"""Many sources on one stream, through the clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

import splitformer_client
from splitformer.errors import DeadlineExceededError, InvalidArgumentError, UnavailableError
from splitformer_client import aio
from splitformer_client.aio import AsyncClient
from splitformer_client.bulk import AsyncEncoding
from tests.conftest import Services, nothing_is_held
from tests.support.checkpoints import SENTENCES
from tests.support.servers import ServerThread
from tests.support.waiting import comes_true

TEXTS = [f"{SENTENCES[number % len(SENTENCES)]} {number}" for number in range(300)]


@pytest.fixture
async def client(services: Services) -> AsyncIterator[AsyncClient]:
    async with aio.connect(services.encoder.address, services.decoder.address) as connected:
        yield connected


async def read_all(job: AsyncEncoding) -> None:
    async for encoded in job:
        encoded.result()


async def test_every_source_gets_its_own_memory(client: AsyncClient) -> None:
    job = client.encode_many(TEXTS, delivery="inline")
    shapes = {encoded.number: encoded.result().shape async for encoded in job}
    assert sorted(shapes) == list(range(len(TEXTS)))
    assert (job.sent, job.done, job.failed) == (len(TEXTS), len(TEXTS), 0)
    for number in (0, 150, 299):
        assert (await client.encode(TEXTS[number])).shape == shapes[number]


async def test_one_that_fails_does_not_stop_the_others(client: AsyncClient) -> None:
    job = client.encode_many([SENTENCES[0], " ", [5, 1], [10**6]])
    outcomes = {encoded.number: encoded async for encoded in job}
    assert outcomes[0].result().is_local
    assert outcomes[2].result().shape == (2, 32)
    for number, reason in ((1, "EMPTY_SOURCE"), (3, "TOKEN_OUT_OF_RANGE")):
        assert outcomes[number].memory is None
        with pytest.raises(InvalidArgumentError) as caught:
            outcomes[number].result()
        assert caught.value.reason == reason
    assert (job.done, job.failed) == (4, 2)


async def test_sources_are_read_only_as_fast_as_answers_are(client: AsyncClient) -> None:
    read = 0

    async def endless() -> AsyncIterator[str]:
        nonlocal read
        while True:
            read += 1
            yield SENTENCES[0]

    job = client.encode_many(endless(), in_flight=4)
    for _ in range(20):
        await anext(job)
    assert read <= 20 + 4 + 1
    await job.aclose()


async def test_references_live_under_leases_of_their_own(
    client: AsyncClient, services: Services
) -> None:
    job = client.encode_many(SENTENCES, delivery="reference", lease=30)
    memories = [encoded.result() async for encoded in job]
    assert services.encoder.service.store.leases == len(SENTENCES)
    for memory in memories:
        await client.release(memory)
    await comes_true(lambda: nothing_is_held(services))


async def test_an_error_of_the_sources_is_raised_as_it_is(client: AsyncClient) -> None:
    def broken() -> Iterator[str]:
        yield SENTENCES[0]
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        async for _ in client.encode_many(broken()):
            pass


@pytest.mark.parametrize(
    ("fields", "name"), [({"in_flight": 0}, "in_flight"), ({"delivery": "post"}, "delivery")]
)
async def test_bad_arguments_are_named(
    client: AsyncClient, fields: dict[str, object], name: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=name):
        async for _ in client.encode_many(SENTENCES, **fields):  # type: ignore[arg-type]
            pass


async def test_a_job_that_is_dropped_leaves_nothing(
    client: AsyncClient, services: Services
) -> None:
    job = client.encode_many(TEXTS)
    await anext(job)
    await job.aclose()
    await comes_true(lambda: services.encoder.service._engine.open == 0)


async def test_a_deadline_covers_the_job(client: AsyncClient) -> None:
    async def slow() -> AsyncIterator[str]:
        yield SENTENCES[0]
        await asyncio.Event().wait()

    with pytest.raises(DeadlineExceededError):
        async for _ in client.encode_many(slow(), timeout=0.5):
            pass


async def test_a_server_that_stops_is_unavailable(
    servers: ServerThread, services: Services
) -> None:
    encoder = servers.start_encoder(services.model, drain_seconds=0)

    async def endless() -> AsyncIterator[str]:
        while True:
            yield SENTENCES[0]

    async with aio.connect(encoder.address) as client:
        job = client.encode_many(endless())
        await anext(job)
        stopping = asyncio.create_task(asyncio.to_thread(servers.stop, encoder))
        with pytest.raises(UnavailableError):
            await read_all(job)
        await stopping


def test_the_plain_client_encodes_many(services: Services) -> None:
    with splitformer_client.connect(services.encoder.address) as client:
        job = client.encode_many(iter(SENTENCES))
        memories = {encoded.number: encoded.result().array for encoded in job}
        assert (job.sent, job.done, job.failed) == (len(SENTENCES), len(SENTENCES), 0)
        assert memories[2].shape == client.encode(SENTENCES[2]).shape
        with client.encode_many(TEXTS) as early:
            next(early)
