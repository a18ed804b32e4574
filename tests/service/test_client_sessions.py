"""Memories and sessions of the asynchronous client, with real services."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from splitformer import errors
from splitformer_client import aio
from splitformer_client.aio import AsyncClient
from splitformer_client.encoder import Delivery
from splitformer_client.settings import Settings
from splitformer_client.values import End, Rewound, Token
from tests.conftest import Services, nothing_is_held
from tests.support.waiting import comes_true

TEXT = "Open the file."
SENTENCE = "Do you want to delete the selected files?"
LONG = f"{TEXT} {SENTENCE}\n\n{SENTENCE}  {TEXT} {SENTENCE}"


@pytest.fixture
async def client(services: Services) -> AsyncIterator[AsyncClient]:
    async with aio.connect(services.encoder.address, services.decoder.address) as connected:
        yield connected


# --- memories -------------------------------------------------------------------------------------


async def test_every_way_to_a_memory_gives_the_same_bits(client: AsyncClient) -> None:
    inline = await client.encode(TEXT, delivery="inline")
    streamed = await client.stream_encode(TEXT)
    reference = await client.encode(TEXT, delivery="reference")
    fetched = await client.fetch(reference)
    assert inline.is_local
    assert not reference.is_local
    assert reference.lease_seconds == pytest.approx(30.0, abs=1.0)
    for memory in (streamed, fetched):
        assert memory.data == inline.data
        assert memory.shape == inline.shape
    assert inline.array.dtype == np.float32
    assert inline.array.shape == inline.shape
    assert await client.release(reference) == 0


async def test_the_numbers_of_a_reference_are_not_here(client: AsyncClient) -> None:
    memory = await client.encode(TEXT, delivery="reference")
    with pytest.raises(errors.FailedPreconditionError) as caught:
        _ = memory.array
    assert caught.value.reason == "MEMORY_NOT_LOCAL"
    await client.release(memory)


async def test_token_ids_are_taken_as_they_are(client: AsyncClient) -> None:
    text = await client.encode(TEXT, delivery="inline")
    ids = [token.id for token in text.header.source_tokens]
    assert (await client.encode(ids, delivery="inline")).data == text.data


async def test_leases(client: AsyncClient) -> None:
    memory = await client.encode(TEXT, delivery="reference", lease=5.0)
    assert memory.lease_seconds == pytest.approx(5.0, abs=0.5)
    renewed = await client.renew(memory, lease=60.0)
    assert renewed.lease_seconds == pytest.approx(60.0, abs=0.5)
    assert renewed.id == memory.id
    assert await client.release(renewed) == 0
    with pytest.raises(errors.NotFoundError):
        await client.fetch(memory)


async def test_a_local_memory_has_no_lease(client: AsyncClient) -> None:
    memory = await client.encode(TEXT, delivery="inline")
    with pytest.raises(errors.FailedPreconditionError) as caught:
        await client.release(memory)
    assert caught.value.reason == "MEMORY_IS_LOCAL"


# --- sessions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("delivery", ["inline", "reference"])
async def test_sessions_over_local_and_referenced_memories(
    client: AsyncClient, services: Services, delivery: Any
) -> None:
    (expected,) = await client.translate(TEXT, "ja", max_new_tokens=6)
    memory = await client.encode(TEXT, delivery=delivery)
    async with await client.open_session(memory, language="ja") as session:
        generation = session.generate(max_new_tokens=6)
        assert [token.id async for token in generation] == [token.id for token in expected.tokens]
        assert generation.end.reason is expected.end.reason
        info = await session.info()
        assert (info.id, info.language, info.text) == (session.id, "ja", expected.text)
        assert info.source_positions == memory.shape[0]
        assert 0 < info.expires_in <= session.idle_timeout
    assert session.closed
    assert await session.close() == 0
    if not memory.is_local:
        await client.release(memory)
    await comes_true(lambda: nothing_is_held(services))


async def test_a_large_memory_is_uploaded_in_chunks(services: Services) -> None:
    settings = Settings(
        encoder=services.encoder.address, decoder=services.decoder.address, chunk_bytes=100
    )
    async with AsyncClient(settings) as client:
        memory = await client.stream_encode(TEXT)
        assert memory.data is not None
        assert len(memory.data) > 300
        async with await client.open_session(memory, language="ja") as session:
            assert [token async for token in session.generate(max_new_tokens=3)]


async def test_steps_are_a_generation_in_slow_motion(client: AsyncClient) -> None:
    (expected,) = await client.translate(TEXT, "ja", max_new_tokens=4)
    memory = await client.encode(TEXT, delivery="inline")
    async with await client.open_session(memory, language="ja") as session:
        steps = [await session.step(index) for index in range(4)]
        assert [step.id for step in steps if isinstance(step, Token)] == [
            token.id for token in expected.tokens
        ]
        assert await session.step(1) == steps[1]
        with pytest.raises(errors.FailedPreconditionError):
            await session.step(9)


async def test_a_broken_off_generation_can_be_resumed(client: AsyncClient) -> None:
    (expected,) = await client.translate(TEXT, "ja", max_new_tokens=10)
    ids = [token.id for token in expected.tokens]
    memory = await client.encode(TEXT, delivery="inline")
    async with await client.open_session(memory, language="ja") as session:
        async for _ in session.generate(max_new_tokens=10):
            break
        await eventually_idle(session)
        resumed = session.generate(start_index=0, max_new_tokens=10)
        assert [token.id async for token in resumed][: len(ids)] == ids


async def eventually_idle(session: aio.AsyncSession) -> None:
    while (await session.info()).state == "running":  # noqa: ASYNC110
        await asyncio.sleep(0.005)


async def test_a_target_prefix_is_not_repeated(client: AsyncClient) -> None:
    memory = await client.encode(TEXT, delivery="inline")
    opening: Any = {"language": "de", "target_prefix": "Save all"}
    async with await client.open_session(memory, **opening) as session:
        tokens = [token async for token in session.generate(max_new_tokens=3)]
    assert tokens[0].index == 0
    assert "Save all" not in "".join(token.text for token in tokens)


async def test_opening_twice_with_one_request_id(client: AsyncClient) -> None:
    memory = await client.encode(TEXT, delivery="inline")
    first = await client.open_session(memory, language="ja", request_id="once")
    second = await client.open_session(memory, language="ja", request_id="once")
    assert first.id == second.id
    await first.close()


async def test_forks_share_the_memory_and_go_their_own_way(client: AsyncClient) -> None:
    memory = await client.encode(TEXT, delivery="inline")
    async with await client.open_session(memory, language="de") as session:
        tokens = [token async for token in session.generate(max_new_tokens=6)]
        async with await session.fork(keep_tokens=2) as fork:
            again = [token async for token in fork.generate(max_new_tokens=4)]
        async with await session.fork(language="ja") as other:
            assert other.language == "ja"
            assert (await other.info()).tokens == 0
    assert [token.id for token in again] == [token.id for token in tokens[2:]]


async def test_a_busy_session(client: AsyncClient) -> None:
    memory = await client.encode(TEXT, delivery="inline")
    async with await client.open_session(memory, language="ja") as session:
        generation = session.generate()
        await anext(generation)
        try:
            with pytest.raises(errors.AbortedError) as caught:  # noqa: PT012
                for _ in range(50):
                    await session.step(0)
            assert caught.value.reason == "SESSION_BUSY"
        finally:
            await generation.aclose()


async def test_a_session_that_is_gone(client: AsyncClient) -> None:
    memory = await client.encode(TEXT, delivery="inline")
    session = await client.open_session(memory, language="ja")
    assert await session.close() > 0
    with pytest.raises(errors.NotFoundError):
        await anext(session.generate())


# --- one-shots ------------------------------------------------------------------------------------


@pytest.mark.parametrize("delivery", ["inline", "reference"])
async def test_decode_gives_what_a_session_gives(
    client: AsyncClient, services: Services, delivery: Delivery
) -> None:
    memory = await client.encode(TEXT, delivery=delivery)
    async with await client.open_session(memory, language="de") as session:
        generation = session.generate(max_new_tokens=8)
        expected = [token async for token in generation]
    one_shot = client.decode(memory, language="de", max_new_tokens=8)
    assert [token async for token in one_shot] == expected
    assert one_shot.end.reason == generation.end.reason
    if delivery == "reference":
        await client.release(memory)
    await comes_true(lambda: nothing_is_held(services))


async def test_a_one_shot_left_early_lets_go(client: AsyncClient, services: Services) -> None:
    memory = await client.encode(TEXT, delivery="inline")
    async with client.decode(memory, language="de") as one_shot:
        async for _ in one_shot:
            break
    await comes_true(lambda: nothing_is_held(services))


async def test_failures_of_a_one_shot_are_the_servers(client: AsyncClient) -> None:
    memory = await client.encode(TEXT, delivery="inline")
    with pytest.raises(errors.InvalidArgumentError, match="target_language") as caught:
        _ = [token async for token in client.decode(memory, language="tlh")]
    assert caught.value.reason == "UNKNOWN_LANGUAGE"


# --- scores ---------------------------------------------------------------------------------------


async def test_scores_of_translations(client: AsyncClient, services: Services) -> None:
    (translation,) = await client.translate(TEXT, "de", temperature=1.0, seed=7)
    assert translation.end.reason == "eos"
    ids = [token.id for token in translation.tokens]
    own, other, part = (await client.score(TEXT, [ids, [*ids, 300]], "de")) + (
        await client.score(TEXT, [ids], "de", include_end=False)
    )
    assert own.log_probability == pytest.approx(translation.log_probability, abs=1e-4)
    assert own.tokens[:-1] == translation.tokens == part.tokens
    assert own.tokens[-1].log_probability == translation.end.log_probability
    assert other.log_probability != own.log_probability
    with pytest.raises(errors.InvalidArgumentError, match="target: must hold a token"):
        await client.score(TEXT, [""], "de", include_end=False)
    with pytest.raises(TypeError, match="targets: must be several"):
        await client.score(TEXT, "Datei", "de")
    await comes_true(lambda: nothing_is_held(services))


async def test_a_session_scores(client: AsyncClient, services: Services) -> None:
    memory = await client.encode(TEXT, delivery="inline")
    async with await client.open_session(memory, language="de") as session:
        tokens = [token async for token in session.generate(max_new_tokens=5)]
        scored = await session.score([token.id for token in tokens], include_end=False)
        assert list(scored.tokens) == tokens
        text = await session.score("Datei")
        assert "".join(token.text for token in text.tokens) == "Datei"
    await comes_true(lambda: nothing_is_held(services))


# --- steering -------------------------------------------------------------------------------------


async def test_a_loop_is_steered(client: AsyncClient, services: Services) -> None:
    memory = await client.encode(TEXT, delivery="inline")
    async with await client.open_session(memory, language="de") as session:
        whole = [token async for token in session.generate(max_new_tokens=8)]
        async with session.interact(start_index=0, max_new_tokens=8) as loop:
            events = []
            async for event in loop:
                events.append(event)
                if isinstance(event, End) and loop.tokens == whole:
                    await loop.rewind(3, hold=True)
                    await loop.force(300, hold=True)
                    await loop.force(301)
                elif isinstance(event, End) and event.total_tokens == 8:
                    await loop.redirect(max_new_tokens=2, temperature=1.0, seed=1)
                elif isinstance(event, End):
                    await loop.finish()
        assert [event.index for event in events if isinstance(event, Rewound)] == [3]
        ids = [token.id for token in loop.tokens]
        assert ids[:5] == [*(token.id for token in whole[:3]), 300, 301]
        assert len(ids) == 10
        assert loop.text == "".join(token.text for token in loop.tokens)
        assert [event.tokens for event in events if isinstance(event, End)] == [8, 13, 15]
        record = [token async for token in session.generate(start_index=0, max_new_tokens=10)]
        assert record == loop.tokens
    await comes_true(lambda: nothing_is_held(services))


async def test_steering_fails_clearly_and_leaves_nothing(
    client: AsyncClient, services: Services
) -> None:
    memory = await client.encode(TEXT, delivery="inline")
    async with await client.open_session(memory, language="de") as session:
        loop = session.interact(hold=True)
        await loop.rewind(-1)
        with pytest.raises(errors.FailedPreconditionError) as caught:
            [event async for event in loop]
        assert caught.value.reason == "REWIND_BEFORE_PREFIX"
        async with session.interact() as loop:
            await anext(loop)
        async with session.interact(hold=True):
            pass
        await comes_true(lambda: services.decoder.service.load().running == 0)
    await comes_true(lambda: nothing_is_held(services))
