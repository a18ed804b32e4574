"""Opening sessions against servers that misbehave: retries, endpoints, metadata."""

from __future__ import annotations

import asyncio

import pytest

from splitformer import errors
from splitformer.v1 import decoder_service_pb2 as pb
from splitformer_client import retry
from splitformer_client.aio import AsyncClient
from splitformer_client.settings import Settings
from tests.support.client_fakes import (
    FakeDecoder,
    FakeEncoder,
    serve,
)
from tests.support.client_world import World, local_memory

# --- opening --------------------------------------------------------------------------------------


async def test_an_upload_is_tried_again_with_the_same_request_id(world: World) -> None:
    world.decoder.failures = [errors.UnavailableError("going away", reason="DRAINING")] * 2
    memory = local_memory(rows=100_000)  # more than gRPC itself would keep for a retry
    session = await world.client.open_session(memory, language="ja")
    assert session.id == "session-1"
    assert world.decoder.data == [memory.data]
    headers = world.decoder.recorded.requests("OpenSession")
    assert len(headers) == 3
    assert len({header.request_id for header in headers}) == 1
    assert headers[0].target_language == "ja"


async def test_opening_gives_up_after_a_few_attempts(world: World) -> None:
    world.decoder.failures = [errors.UnavailableError("down", reason="DRAINING")] * 10
    with pytest.raises(errors.UnavailableError, match="down") as caught:
        await world.client.open_session(local_memory())
    assert caught.value.reason == "DRAINING"
    assert len(world.decoder.recorded.requests("OpenSession")) == 4


async def test_other_failures_are_not_tried_again(world: World) -> None:
    full = errors.ResourceExhaustedError("budget: full", retry_after=0.5)
    world.decoder.failures = [full]
    with pytest.raises(errors.ResourceExhaustedError, match="budget: full") as caught:
        await world.client.open_session(local_memory())
    assert caught.value.reason == "OVER_BUDGET"
    assert caught.value.retry_after == 0.5
    assert len(world.decoder.recorded.requests("OpenSession")) == 1


async def test_retries_wait_as_long_as_the_server_asks_but_not_beyond_the_deadline(
    world: World,
) -> None:
    world.decoder.failures = [errors.UnavailableError("later", retry_after=60.0)] * 2
    started = asyncio.get_running_loop().time()
    with pytest.raises(errors.UnavailableError, match="later"):
        await world.client.open_session(local_memory(), timeout=2.0)
    assert asyncio.get_running_loop().time() - started < 2.0
    assert len(world.decoder.recorded.requests("OpenSession")) == 1


async def test_pauses_grow_and_vary() -> None:
    pauses = [retry._pause(number) for number in range(4)]
    for number, pause in enumerate(pauses):
        assert 0.5 <= pause / (retry.FIRST_PAUSE * 2**number) <= 1.5


async def test_a_caller_may_choose_the_request_id(world: World) -> None:
    await world.client.open_session(local_memory(), request_id="mine", target_prefix=[5, 6])
    (header,) = world.decoder.recorded.requests("OpenSession")
    assert header.request_id == "mine"
    assert list(header.target_prefix.tokens.ids) == [5, 6]


# --- endpoints and metadata -----------------------------------------------------------------------


async def test_a_foreign_endpoint_is_refused(world: World) -> None:
    world.decoder.reply = pb.OpenSessionResponse(endpoint="evil.example.org:443")
    with pytest.raises(errors.PermissionDeniedError, match=r"evil\.example\.org:443") as caught:
        await world.client.open_session(local_memory())
    assert caught.value.reason == "ENDPOINT_NOT_ALLOWED"


async def test_an_allowed_endpoint_is_dialled(world: World) -> None:
    other = FakeDecoder()
    server, address = await serve(other)
    world.decoder.reply = pb.OpenSessionResponse(endpoint=address)
    settings = Settings(
        encoder=world.address, decoder=world.address, allowed_endpoint_suffixes=("127.0.0.1",)
    )
    async with AsyncClient(settings) as client:
        session = await client.open_session(local_memory())
        await session.info()
        await session.close()
    await server.stop(None)
    assert other.closed == ["session-1"]
    assert not world.decoder.closed


async def test_the_address_in_use_needs_no_permission(world: World) -> None:
    world.decoder.reply = pb.OpenSessionResponse(endpoint=world.address)
    session = await world.client.open_session(local_memory())
    assert await session.close() == 64


async def test_replica_and_request_id_travel_as_metadata(world: World) -> None:
    world.decoder.reply = pb.OpenSessionResponse(replica="decoder-3")
    async with await world.client.open_session(local_memory()) as session:
        async for _ in session.generate():
            pass
        await session.info()
    for method in ("Generate", "GetSession", "CloseSession"):
        (metadata,) = world.decoder.recorded.metadata(method)
        assert metadata["splitformer-replica"] == "decoder-3"
        assert len(bytes.fromhex(metadata["splitformer-request-id"])) == 16


async def test_one_translation_has_one_request_id(world: World) -> None:
    await world.client.translate("hello", ["ja", "de"])
    seen = [
        metadata["splitformer-request-id"]
        for fake in (world.encoder, world.decoder)
        for _, _, metadata in fake.recorded.calls
    ]
    assert len(seen) == 7  # model info, encode, release, two openings, two generations
    assert len(set(seen)) == 1


async def test_a_memory_is_released_where_it_is_if_that_is_allowed(world: World) -> None:
    other = FakeEncoder()
    server, world.encoder.endpoint = await serve(other)
    memory = await world.client.encode("hello", delivery="reference")
    await world.client.release(memory)
    assert world.encoder.released == ["lease-1"]  # not allowed: the address that we were given
    settings = Settings(
        encoder=world.address, decoder=world.address, allowed_endpoint_suffixes=("127.0.0.1",)
    )
    async with AsyncClient(settings) as client:
        await client.release(memory)
    assert other.released == ["lease-1"]
    for encoder in (world.encoder, other):  # a proxy in between finds it
        (metadata,) = encoder.recorded.metadata("ReleaseMemory")
        assert metadata["splitformer-replica"] == world.encoder.endpoint
    await server.stop(None)
