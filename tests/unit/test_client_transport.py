"""The client against servers that misbehave: retries, endpoints, deadlines, clean-up."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest
from splitformer_client import aio, retry
from splitformer_client.aio import AsyncClient
from splitformer_client.memory import Memory
from splitformer_client.scope import Scope
from splitformer_client.settings import Settings

from splitformer import errors, wire
from splitformer.v1 import decoder_service_pb2 as pb, tensor_pb2
from tests.support.client_fakes import (
    FakeDecoder,
    FakeEncoder,
    eventually,
    say_for_ever,
    say_without_end,
    serve,
)


@dataclass(frozen=True)
class World:
    """A client and the fakes it talks to."""

    encoder: FakeEncoder
    decoder: FakeDecoder
    client: AsyncClient
    address: str


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.01)
    encoder, decoder = FakeEncoder(), FakeDecoder()
    server, address = await serve(encoder, decoder)
    async with aio.connect(address, address, timeout=10) as client:
        yield World(encoder, decoder, client, address)
    await server.stop(None)


def local_memory(rows: int = 4) -> Memory:
    header = tensor_pb2.MemoryHeader(dtype=tensor_pb2.DATA_TYPE_F16, shape=(rows, 8))
    return Memory(header, bytes(range(16)) * rows)


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
    await server.stop(None)


# --- translate ------------------------------------------------------------------------------------


async def test_one_encoding_serves_all_languages(world: World) -> None:
    answers = await world.client.translate("hello", ["de", "ja", "fr"], top_k=5)
    assert [(answer.language, answer.text) for answer in answers] == [
        ("de", "ab"), ("ja", "ab"), ("fr", "ab"),
    ]  # fmt: skip
    assert len(world.encoder.recorded.requests("Encode")) == 1
    assert world.encoder.released == ["lease-1"]
    headers = world.decoder.recorded.requests("OpenSession")
    assert {header.target_language for header in headers} == {"de", "ja", "fr"}
    assert {header.reference.memory_id for header in headers} == {"memory-1"}
    for request in world.decoder.recorded.requests("Generate"):
        assert request.close_on_end
        assert request.options.top_k == 5
    assert not world.decoder.closed


async def test_bound_memories_take_one_encoding_per_language(world: World) -> None:
    world.encoder.language_on_decoder = False
    await world.client.translate("hello", ["de", "ja"])
    await world.client.translate("hello", ["de"])
    sources = [request.source for request in world.encoder.recorded.requests("Encode")]
    assert sorted(source.target_language for source in sources) == ["de", "de", "ja"]
    headers = world.decoder.recorded.requests("OpenSession")
    assert {header.target_language for header in headers} == {""}
    assert {header.reference.header.target_language for header in headers} == {"de", "ja"}
    assert sorted(world.encoder.released) == ["lease-1", "lease-2", "lease-3"]
    assert len(world.encoder.recorded.requests("GetModelInfo")) == 1  # remembered


async def test_a_failed_opening_lets_go_of_everything(world: World) -> None:
    world.decoder.failures = [errors.InvalidArgumentError("language: unknown")]
    world.decoder.generate = say_for_ever
    with pytest.raises(errors.InvalidArgumentError, match="language: unknown"):
        await world.client.translate("hello", ["xx", "de"])
    assert world.encoder.released == ["lease-1"]
    opened = [f"session-{number + 1}" for number in range(len(world.decoder.data))]
    assert world.decoder.closed == opened


async def test_cancelling_lets_go_of_everything(world: World) -> None:
    world.decoder.generate = say_for_ever
    task = asyncio.create_task(world.client.translate("hello", ["ja", "de"]))
    await eventually(lambda: len(world.decoder.recorded.requests("Generate")) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(world.decoder.closed) == ["session-1", "session-2"]
    assert world.encoder.released == ["lease-1"]
    await eventually(lambda: len(world.decoder.recorded.cancelled) == 2)


async def test_cancelling_while_encoding(world: World) -> None:
    world.encoder.delay = 30.0
    task = asyncio.create_task(world.client.translate("hello", "ja"))
    await eventually(lambda: bool(world.encoder.recorded.requests("Encode")))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not world.decoder.recorded.calls


async def test_leaving_a_stream_early_lets_go_of_everything(world: World) -> None:
    world.decoder.generate = say_for_ever
    async for language, _ in world.client.translate_stream("hello", ["ja", "de"]):
        assert language in {"ja", "de"}
        break
    await eventually(lambda: len(world.decoder.closed) == 2)
    await eventually(lambda: world.encoder.released == ["lease-1"])


async def test_tokens_arrive_before_the_end(world: World) -> None:
    world.decoder.generate = say_for_ever
    tokens = []
    async for token in world.client.stream("hello", "ja"):
        tokens.append(token.index)
        if len(tokens) == 3:
            break
    assert tokens == [0, 1, 2]


async def test_the_timeout_covers_the_whole_translation(world: World) -> None:
    world.encoder.delay = 0.3
    world.decoder.generate = say_for_ever
    started = asyncio.get_running_loop().time()
    with pytest.raises(errors.DeadlineExceededError) as caught:
        await world.client.translate("hello", "ja", timeout=0.6)
    assert asyncio.get_running_loop().time() - started >= 0.59
    assert caught.value.reason == "DEADLINE_EXCEEDED"
    assert f"decoder {world.address}: no answer within 0.6 s" in caught.value.message
    await eventually(lambda: world.decoder.closed == ["session-1"])
    assert world.encoder.released == ["lease-1"]


@pytest.mark.parametrize("to", [[], ["ja", "de", "ja"]])
async def test_languages_must_be_named_once(world: World, to: list[str]) -> None:
    with pytest.raises(errors.InvalidArgumentError, match="at least one language, and none twice"):
        await world.client.translate("hello", to)
    assert not world.encoder.recorded.calls


# --- failures of the transport --------------------------------------------------------------------


async def test_an_encoder_that_comes_back_is_asked_again(world: World) -> None:
    world.encoder.failures = [errors.UnavailableError("draining", reason="DRAINING")] * 2
    assert (await world.client.encode("hello", delivery="reference")).id == "memory-3"


@pytest.mark.parametrize("service", ["encoder", "decoder"])
async def test_an_unreachable_server_is_named(service: str) -> None:
    async with aio.connect("127.0.0.1:1", "127.0.0.1:1", timeout=10) as client:
        with pytest.raises(errors.UnavailableError, match=f"{service} 127.0.0.1:1: ") as caught:
            await getattr(client, f"{service}_info")()
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert caught.value.reason == "UNAVAILABLE"


async def test_a_method_that_the_server_lacks(world: World) -> None:
    session = await world.client.open_session(local_memory())
    with pytest.raises(errors.UnimplementedError):
        await session.step(0)


async def test_a_server_that_breaks_is_an_error_of_ours(world: World) -> None:
    async def broken(request: Any, context: Any) -> AsyncIterator[Any]:
        raise ValueError("boom")
        yield

    world.decoder.generate = broken
    with pytest.raises(errors.SplitformerError) as caught:
        await world.client.translate("hello", "ja")
    assert not isinstance(caught.value, grpc.RpcError)
    assert world.decoder.closed == ["session-1"]


async def test_a_stream_without_an_end_is_truncated(world: World) -> None:
    world.decoder.generate = say_without_end
    with pytest.raises(errors.DataLossError) as caught:
        await world.client.translate("hello", "ja")
    assert caught.value.reason == "STREAM_TRUNCATED"


async def test_the_end_is_known_only_at_the_end(world: World) -> None:
    session = await world.client.open_session(local_memory())
    generation = session.generate()
    await anext(generation)
    with pytest.raises(errors.FailedPreconditionError) as caught:
        _ = generation.end
    assert caught.value.reason == "GENERATION_RUNNING"
    assert [token.text async for token in generation] == ["b"]
    assert generation.end.reason == "eos"


async def test_letting_go_of_a_generation_cancels_it_and_keeps_the_session(world: World) -> None:
    world.decoder.generate = say_for_ever
    session = await world.client.open_session(local_memory())
    async for _ in session.generate():
        break
    await eventually(lambda: world.decoder.recorded.cancelled == ["session-1"])
    assert not world.decoder.closed


async def test_closing_a_generation_that_another_task_reads(world: World) -> None:
    world.decoder.generate = say_for_ever
    session = await world.client.open_session(local_memory())
    generation = session.generate()

    async def read() -> None:
        async for _ in generation:
            pass

    task = asyncio.create_task(read())
    await eventually(lambda: bool(world.decoder.recorded.requests("Generate")))
    await generation.aclose()
    with pytest.raises(errors.CancelledError):
        await task


async def test_a_closed_client_says_so(world: World) -> None:
    await world.client.close()
    with pytest.raises(errors.FailedPreconditionError, match="closed") as caught:
        await world.client.translate("hello", "ja")
    assert caught.value.reason == "CLIENT_CLOSED"


async def test_closing_the_client_ends_running_calls(world: World) -> None:
    world.decoder.generate = say_for_ever
    task = asyncio.create_task(world.client.translate("hello", "ja"))
    await eventually(lambda: bool(world.decoder.recorded.requests("Generate")))
    await world.client.close()
    with pytest.raises(errors.SplitformerError):
        await task


async def test_asyncio_timeout_is_the_callers_own(world: World) -> None:
    world.decoder.generate = say_for_ever
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await world.client.translate("hello", "ja")
    assert world.decoder.closed == ["session-1"]


async def test_no_time_left_is_found_without_a_call() -> None:
    with pytest.raises(errors.DeadlineExceededError, match=r"0\.5 s were not enough"):
        Scope(0.5, started=-100.0).rpc_timeout()
    assert Scope(math.inf).rpc_timeout() is None


# --- channels -------------------------------------------------------------------------------------


async def test_encoders_are_taken_in_turn() -> None:
    fakes = [FakeEncoder("one"), FakeEncoder("two")]
    servers = [await serve(fake) for fake in fakes]
    target = "ipv4:" + ",".join(address for _, address in servers)
    async with aio.connect(target, "127.0.0.1:1") as client:
        await eventually_both(client)
    for server, _ in servers:
        await server.stop(None)


async def eventually_both(client: AsyncClient) -> None:
    seen: set[str] = set()
    while seen != {"one", "two"}:
        seen.add((await client.encode("hello", delivery="reference")).model)


async def test_large_answers_fit(world: World) -> None:
    text = "x" * (6 << 20)  # over gRPC's default limit of 4 MiB

    async def large(request: Any, context: Any) -> AsyncIterator[Any]:
        yield pb.GenerateResponse(tokens=pb.Tokens(tokens=[pb.Token(text=text)]))
        yield pb.GenerateResponse(end=pb.End())

    world.decoder.generate = large
    (answer,) = await world.client.translate("hello", "ja")
    assert answer.text == text


def test_a_local_memory_reads_its_numbers() -> None:
    header = tensor_pb2.MemoryHeader(dtype=tensor_pb2.DATA_TYPE_F32, shape=(1, 2), model="m")
    memory = Memory(header, wire.pack(np.array([[1.5, -2.0]], np.float32), header.dtype))
    assert memory.array.tolist() == [[1.5, -2.0]]
    assert repr(memory) == "Memory(m, 1x2 f32, local)"
