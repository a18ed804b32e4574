"""What a translation asks of the servers, and that it lets go of everything."""

from __future__ import annotations

import asyncio

import pytest

from splitformer import errors
from splitformer_client import fan
from tests.support.client_fakes import (
    eventually,
    say_for_ever,
)
from tests.support.client_world import World


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


async def test_cancelling_while_encoding_waits_for_the_lease_to_end_it(world: World) -> None:
    world.encoder.delay = 0.3
    task = asyncio.create_task(world.client.translate("hello", "ja"))
    await eventually(lambda: bool(world.encoder.recorded.requests("Encode")))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.encoder.released == ["lease-1"]
    assert not world.decoder.recorded.calls


async def test_cancelling_does_not_wait_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fan, "ANSWER_SECONDS", 0.05)
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
