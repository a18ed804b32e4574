"""Failures of the transport, and channels."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest

from splitformer import errors, wire
from splitformer.v1 import decoder_service_pb2 as pb, tensor_pb2
from splitformer_client import aio
from splitformer_client.aio import AsyncClient
from splitformer_client.link import Link
from splitformer_client.memory import Memory
from splitformer_client.scope import Scope
from tests.support.client_fakes import (
    FakeEncoder,
    end,
    eventually,
    say_for_ever,
    say_without_end,
    serve,
)
from tests.support.client_world import World, local_memory

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


async def test_an_upload_that_breaks_off_may_be_tried_again() -> None:
    class BrokenOff:
        """A call that grpc.aio gives up, as when its end cannot be written."""

        def __await__(self) -> Any:
            raise asyncio.CancelledError
            yield

        def add_done_callback(self, callback: Any) -> None:
            """Nothing is ever done."""

    class Method:
        _method = b"/splitformer.v1.DecoderService/OpenSession"

        def __call__(self, *_: Any, **__: Any) -> BrokenOff:
            return BrokenOff()

    async def requests() -> AsyncIterator[Any]:
        yield None

    link = Link("decoder", "proxy:1", (), None)
    method: Any = Method()
    with pytest.raises(errors.UnavailableError, match="decoder proxy:1: the call broke off"):
        await link.upload(method, requests(), Scope(10.0))


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


async def test_a_server_does_not_see_a_finished_generation_cancelled(world: World) -> None:
    finished = []

    async def slow_to_finish(request: Any, context: Any) -> AsyncIterator[Any]:
        yield end()
        await asyncio.sleep(0.05)
        finished.append(request.session_id)

    world.decoder.generate = slow_to_finish
    await world.client.translate("hello", "ja")
    assert finished == ["session-1"]
    assert not world.decoder.recorded.cancelled


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
    with pytest.raises(errors.CancelledError, match="client: was closed"):
        await task
    assert world.decoder.closed == ["session-1"]


async def test_closing_the_client_ends_running_calls_on_sessions(world: World) -> None:
    world.decoder.generate = say_for_ever
    generation = (await world.client.open_session(local_memory())).generate()
    await anext(generation)
    await world.client.close()
    with pytest.raises(errors.CancelledError):  # noqa: PT012
        while True:
            await anext(generation)


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
