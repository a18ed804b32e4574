"""Translating with the asynchronous client and real services."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from splitformer import errors
from splitformer_client import aio, fan
from splitformer_client.aio import AsyncClient
from splitformer_client.generation import AsyncGeneration
from splitformer_client.session import AsyncSession
from splitformer_client.values import End, EndReason
from tests.conftest import Services, nothing_is_held
from tests.support.servers import ServerThread
from tests.support.waiting import comes_true

TEXT = "Open the file."
SENTENCE = "Do you want to delete the selected files?"
LONG = f"{TEXT} {SENTENCE}\n\n{SENTENCE}  {TEXT} {SENTENCE}"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine, letting go must not be given up."""
    monkeypatch.setattr(fan, "ANSWER_SECONDS", 20.0)
    monkeypatch.setattr(fan, "CLEANUP_SECONDS", 20.0)


@pytest.fixture
async def client(services: Services) -> AsyncIterator[AsyncClient]:
    async with aio.connect(services.encoder.address, services.decoder.address) as connected:
        yield connected


async def test_calls_are_let_go_when_they_end_not_when_garbage_is_collected(
    services: Services,
) -> None:
    def calls() -> set[int]:
        return {id(each) for each in gc.get_objects() if issubclass(type(each), grpc.aio.Call)}

    gc.collect()
    gc.disable()
    try:
        before = calls()
        async with aio.connect(services.encoder.address, services.decoder.address) as client:
            await client.translate(TEXT, ["de", "ja"], max_new_tokens=4)
        assert calls() <= before
    finally:
        gc.enable()


# --- translate ------------------------------------------------------------------------------------


async def test_translate(client: AsyncClient, services: Services) -> None:
    before = services.encoder.metric("splitformer_encoder_sources_total")
    answers = await client.translate(TEXT, ["de", "ja", "fr"], max_new_tokens=8)
    assert [answer.language for answer in answers] == ["de", "ja", "fr"]
    for answer in answers:
        assert answer.text == "".join(token.text for token in answer.tokens) + answer.end.text
        assert [token.index for token in answer.tokens] == list(range(len(answer.tokens)))
        assert answer.end.tokens == len(answer.tokens) <= 8
        assert answer.end.reason in {EndReason.EOS, EndReason.LENGTH}
        assert answer.log_probability < 0
    assert len({answer.text for answer in answers}) == 3
    assert services.encoder.metric("splitformer_encoder_sources_total") == before + 1
    await comes_true(lambda: nothing_is_held(services))


async def test_a_language_does_not_depend_on_the_others(client: AsyncClient) -> None:
    together = await client.translate(TEXT, ["ja", "de"], max_new_tokens=8)
    for answer in together:
        (alone,) = await client.translate(TEXT, answer.language, max_new_tokens=8)
        assert (alone.text, alone.tokens[0].id) == (answer.text, answer.tokens[0].id)


async def test_streams_say_what_translate_says(client: AsyncClient) -> None:
    whole = await client.translate(TEXT, ["ja", "de"], max_new_tokens=8)
    events = [
        event async for event in client.translate_stream(TEXT, ["ja", "de"], max_new_tokens=8)
    ]
    for answer in whole:
        own = [event for language, event in events if language == answer.language]
        assert [event.text for event in own[:-1]] == [token.text for token in answer.tokens]
        assert isinstance(own[-1], End)
        assert own[-1].reason is answer.end.reason
    tokens = [token async for token in client.stream(TEXT, "de", max_new_tokens=8)]
    assert [token.id for token in tokens] == [token.id for token in whole[1].tokens]


async def test_streams_may_have_several_tokens_in_a_message(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, session = [], AsyncSession.generation

    def generation(self: AsyncSession, *args: Any, **kwargs: Any) -> AsyncGeneration:
        asked.append(kwargs["max_tokens_per_message"])
        return session(self, *args, **kwargs)

    monkeypatch.setattr(AsyncSession, "generation", generation)
    options: Any = {"mode": "parallel", "max_new_tokens": 8}
    (whole,) = await client.translate(TEXT, "de", **options)
    for most in (0, 3):
        stream = client.stream(TEXT, "de", max_tokens_per_message=most, **options)
        assert [token.id async for token in stream] == [token.id for token in whole.tokens]
    assert asked == [aio.TOKENS_PER_MESSAGE, 0, 3]
    with pytest.raises(errors.InvalidArgumentError, match="max_tokens_per_message"):
        await anext(client.stream(TEXT, "de", max_tokens_per_message=-1))


async def test_sampling_is_repeatable_by_its_seed(client: AsyncClient) -> None:
    options: Any = {"temperature": 1.5, "top_k": 20, "max_new_tokens": 12}
    (first,) = await client.translate(TEXT, "ja", **options)
    assert first.end.seed != 0
    (again,) = await client.translate(TEXT, "ja", seed=first.end.seed, **options)
    assert [token.id for token in again.tokens] == [token.id for token in first.tokens]


async def test_sampling_in_pieces_is_repeatable_by_the_seed_told(client: AsyncClient) -> None:
    options: dict[str, Any] = {"temperature": 1.5, "max_new_tokens": 8}
    text = f"{TEXT}\n\n{TEXT} Save all changes."
    first = await client.translate(text, ["ja", "de"], **options)
    assert first[0].end.seed != first[1].end.seed
    for known in first:
        (again,) = await client.translate(text, known.language, seed=known.end.seed, **options)
        assert again.text == known.text


async def test_long_text_is_translated_sentence_by_sentence(
    client: AsyncClient, services: Services
) -> None:
    german, japanese = await client.translate(LONG, ["de", "ja"], max_new_tokens=6)
    parts = {}
    for language in ("de", "ja"):
        for text in (TEXT, SENTENCE):
            (answer,) = await client.translate(text, language, max_new_tokens=6)
            parts[language, text] = answer
    separators = {"de": [" ", "\n\n", "  ", " ", ""], "ja": ["", "\n\n", "  ", "", ""]}
    for whole in (german, japanese):
        pieces = [
            parts[whole.language, text] for text in (TEXT, SENTENCE, SENTENCE, TEXT, SENTENCE)
        ]
        expected = zip(pieces, separators[whole.language], strict=True)
        assert whole.text == "".join(piece.text + separator for piece, separator in expected)
        assert [token.id for token in whole.tokens] == [
            token.id for piece in pieces for token in piece.tokens
        ]
        assert [token.index for token in whole.tokens] == list(range(whole.end.tokens))
    await comes_true(lambda: nothing_is_held(services))


async def test_paragraphs_stay_paragraphs_however_short(client: AsyncClient) -> None:
    parts = ["Open the file.", "Save all changes."]
    (whole,) = await client.translate("\n\n".join(parts), "de", max_new_tokens=8)
    alone = [(await client.translate(part, "de", max_new_tokens=8))[0].text for part in parts]
    assert whole.text == "\n\n".join(alone)


async def test_long_text_is_refused_if_that_is_wished(client: AsyncClient) -> None:
    with pytest.raises(errors.InvalidArgumentError) as caught:
        await client.translate(LONG, "ja", long_text="refuse")
    assert caught.value.reason == "SOURCE_TOO_LONG"
    assert int(caught.value.metadata["length"]) > int(caught.value.metadata["limit"])


async def test_a_sentence_that_is_too_long_is_refused(
    client: AsyncClient, services: Services
) -> None:
    endless = "and " * 200
    for text in (endless, f"{TEXT} {endless}"):
        with pytest.raises(errors.InvalidArgumentError) as caught:
            await client.translate(text, "ja")
        assert caught.value.reason == "SOURCE_TOO_LONG"
    await comes_true(lambda: nothing_is_held(services))


async def test_many_translations_at_once(client: AsyncClient, services: Services) -> None:
    work = [client.translate(f"File {n}.", ["ja", "de"], max_new_tokens=5) for n in range(20)]
    assert len(await asyncio.gather(*work)) == 20
    await comes_true(lambda: nothing_is_held(services))


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "  \n"])
async def test_empty_sources(client: AsyncClient, text: str) -> None:
    with pytest.raises(errors.InvalidArgumentError) as caught:
        await client.translate(text, "ja")
    assert caught.value.reason == "EMPTY_SOURCE"
    assert caught.value.violations[0].field.startswith("source")


async def test_an_unknown_language_names_the_known_ones(
    client: AsyncClient, services: Services
) -> None:
    with pytest.raises(errors.InvalidArgumentError, match="ja, de, fr, es, zh_CN") as caught:
        await client.translate(TEXT, ["ja", "tlh"])
    assert caught.value.reason == "UNKNOWN_LANGUAGE"
    await comes_true(lambda: nothing_is_held(services))


async def test_an_unknown_model(services: Services) -> None:
    address = services.encoder.address, services.decoder.address
    async with aio.connect(*address, model="no-such-model") as client:
        with pytest.raises(errors.NotFoundError, match="no-such-model") as caught:
            await client.translate(TEXT, "ja")
    assert caught.value.reason == "MODEL_NOT_FOUND"


async def test_a_bad_option_is_the_servers_error(client: AsyncClient, services: Services) -> None:
    with pytest.raises(errors.InvalidArgumentError) as caught:
        await client.translate(TEXT, "ja", temperature=-1.0)
    assert caught.value.reason == "BAD_OPTION"
    await comes_true(lambda: nothing_is_held(services))


async def test_models_that_do_not_match(
    services: Services, other_model: Any, servers: ServerThread
) -> None:
    decoder = servers.start_decoder(other_model, services.encoder)
    async with aio.connect(services.encoder.address, decoder.address) as client:
        with pytest.raises(errors.FailedPreconditionError) as caught:
            await client.translate(TEXT, "ja")
    assert caught.value.reason == "FINGERPRINT_MISMATCH"
    await comes_true(lambda: nothing_is_held(services))


async def test_an_encoder_that_the_decoder_may_not_ask(
    services: Services, servers: ServerThread
) -> None:
    decoder = servers.start_decoder(services.model)
    async with aio.connect(services.encoder.address, decoder.address) as client:
        with pytest.raises(errors.PermissionDeniedError) as caught:
            await client.translate(TEXT, "ja")
    assert caught.value.reason == "ENDPOINT_NOT_ALLOWED"


# --- letting go -----------------------------------------------------------------------------------


async def test_leaving_a_stream_early_frees_the_slot(
    client: AsyncClient, services: Services
) -> None:
    async for _ in client.stream(TEXT, "ja"):
        break
    await comes_true(lambda: nothing_is_held(services))


async def test_closing_a_stream_frees_everything_before_going_on(
    client: AsyncClient, services: Services
) -> None:
    async with contextlib.aclosing(client.translate_stream(LONG, ["ja", "de"])) as events:
        await anext(events)
    assert len(services.decoder.service.sessions) == 0
    await comes_true(lambda: nothing_is_held(services))  # the decoder has leases of its own


async def test_a_deadline_in_the_middle_strands_nothing(
    services: Services, servers: ServerThread
) -> None:
    # What the servers finish as the deadline passes, nobody knows the id of: it expires.
    encoder = servers.start_encoder(services.model, lease_seconds=1.0)
    decoder = servers.start_decoder(services.model, encoder, idle_seconds=1.0)
    async with aio.connect(encoder.address, decoder.address) as client:
        with pytest.raises(errors.DeadlineExceededError):
            await client.translate(" ".join([SENTENCE] * 200), ["ja", "de"], timeout=0.3)
    await comes_true(lambda: nothing_is_held(Services(encoder, decoder, services.model)))


async def test_cancelling_frees_everything(client: AsyncClient, services: Services) -> None:
    task = asyncio.create_task(client.translate(" ".join([SENTENCE] * 50), ["ja", "de"]))
    await comes_true(lambda: len(services.decoder.service.sessions) > 0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await comes_true(lambda: nothing_is_held(services))


# --- servers come and go --------------------------------------------------------------------------


async def test_infos(client: AsyncClient) -> None:
    encoder, decoder = await client.encoder_info(), await client.decoder_info()
    assert encoder.fingerprint == decoder.fingerprint
    assert encoder.target_languages == ("ja", "de", "fr", "es", "zh_CN")
    assert encoder.language_on_decoder
    assert (encoder.memory_kind, encoder.memory_dtype) == ("sequence", "f16")


async def test_an_encoder_that_is_not_healthy_is_left_out(
    services: Services, servers: ServerThread
) -> None:
    other = servers.start_encoder(services.model)
    target = f"ipv4:{services.encoder.address},{other.address}"
    async with aio.connect(target, services.decoder.address) as client:
        for encoder in (services.encoder, other):
            before = encoder.metric("splitformer_encoder_sources_total")
            await eventually_encoded(client, encoder, before)
        servers.stop(other)
        for _ in range(10):
            await client.release(await client.encode(TEXT, delivery="reference"))


async def eventually_encoded(client: AsyncClient, encoder: Any, before: float) -> None:
    while encoder.metric("splitformer_encoder_sources_total") == before:
        await client.encode(TEXT, delivery="inline")


async def test_a_decoder_that_is_gone(services: Services, servers: ServerThread) -> None:
    decoder = servers.start_decoder(services.model, services.encoder)
    async with aio.connect(services.encoder.address, decoder.address) as client:
        await client.translate(TEXT, "ja", max_new_tokens=2)
        servers.stop(decoder)
        with pytest.raises(errors.UnavailableError, match=f"decoder {decoder.address}"):
            await client.translate(TEXT, "ja", max_new_tokens=2)
    await comes_true(lambda: len(services.encoder.service.store) == 0)
