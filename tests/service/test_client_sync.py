"""The plain client against real services: the same answers, and nothing left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

import splitformer_client
from splitformer import errors
from splitformer_client import Client, End, EndReason, Token, fan
from tests.conftest import Services

TEXT = "Open the file."


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine, letting go must not be given up."""
    monkeypatch.setattr(fan, "ANSWER_SECONDS", 20.0)
    monkeypatch.setattr(fan, "CLEANUP_SECONDS", 20.0)


@pytest.fixture
def client(services: Services) -> Iterator[Client]:
    with splitformer_client.connect(services.encoder.address, services.decoder.address) as made:
        yield made


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


def nothing_is_held(services: Services) -> bool:
    held = len(services.encoder.service.store) + len(services.decoder.service.sessions)
    return held == 0 and services.decoder.service.load().running == 0


def test_translate_and_streams(client: Client) -> None:
    japanese, german = client.translate(TEXT, ["ja", "de"], max_new_tokens=6)
    assert (japanese.language, german.language) == ("ja", "de")
    texts = {"ja": "", "de": ""}
    for language, event in client.translate_stream(TEXT, ["ja", "de"], max_new_tokens=6):
        texts[language] += event.text
        assert isinstance(event, End) or event.index < 6
    assert texts == {"ja": japanese.text, "de": german.text}
    tokens = list(client.stream(TEXT, "de", max_new_tokens=6))
    assert [token.id for token in tokens] == [token.id for token in german.tokens]


def test_break_frees_the_slot(client: Client, services: Services) -> None:
    for _ in client.stream(TEXT, "ja"):
        break
    eventually(lambda: nothing_is_held(services))


def test_close_frees_the_slot_before_going_on(client: Client, services: Services) -> None:
    with client.translate_stream(TEXT, ["ja", "de", "fr"]) as events:
        next(events)
    assert len(services.decoder.service.sessions) == 0


def test_closing_the_client_frees_the_slot(services: Services) -> None:
    client = splitformer_client.connect(services.encoder.address, services.decoder.address)
    stream = client.stream(TEXT, "ja")
    next(stream)
    client.close()
    eventually(lambda: nothing_is_held(services))
    with pytest.raises(errors.FailedPreconditionError):
        list(stream)


def test_memories_and_sessions(client: Client) -> None:
    (expected,) = client.translate(TEXT, "ja", max_new_tokens=5)
    memory = client.encode(TEXT, delivery="reference")
    assert client.fetch(memory).data == client.stream_encode(TEXT).data
    memory = client.renew(memory, lease=60.0)
    with client.open_session(memory, language="ja") as session:
        with session.generate(max_new_tokens=5) as generation:
            assert [token.id for token in generation] == [token.id for token in expected.tokens]
        assert generation.end.reason in {EndReason.EOS, EndReason.LENGTH}
        assert session.step(0) == expected.tokens[0]
        assert session.info().tokens == 5
    assert session.closed
    assert client.release(memory) == 0


def test_a_generation_that_is_broken_off_leaves_its_session(client: Client) -> None:
    memory = client.encode(TEXT, delivery="inline")
    with client.open_session(memory, language="ja") as session:
        for _ in session.generate():
            break
        eventually(lambda: session.info().state != "running")
        assert isinstance(session.step(0), Token)


def test_a_fork_continues_the_session(client: Client) -> None:
    memory = client.encode("Open the file.", delivery="inline")
    with client.open_session(memory, language="de") as session:
        tokens = list(session.generate(max_new_tokens=5))
        with session.fork(keep_tokens=3) as fork:
            assert [t.id for t in fork.generate(max_new_tokens=2)] == [t.id for t in tokens[3:]]


def test_decoding_in_one_call(client: Client, services: Services) -> None:
    memory = client.encode(TEXT, delivery="inline")
    (expected,) = client.translate(TEXT, "ja", max_new_tokens=5)
    with client.decode(memory, language="ja", max_new_tokens=5) as generation:
        assert list(generation) == list(expected.tokens)
    assert generation.end.reason == expected.end.reason
    eventually(lambda: nothing_is_held(services))


def test_scores(client: Client) -> None:
    ids = [token.id for token in client.stream(TEXT, "de", max_new_tokens=4)]
    (first, second) = client.score(TEXT, [ids, "Datei"], "de")
    assert len(first.tokens) == 5
    assert second.log_probability < 0
    with client.open_session(client.encode(TEXT), language="de") as session:
        assert session.score(ids) == first


def test_steering(client: Client) -> None:
    with client.open_session(client.encode(TEXT), language="de") as session:
        with session.interact(hold=True, max_new_tokens=4) as loop:
            loop.force(300)
            for event in loop:
                if isinstance(event, End) and len(loop.tokens) == 4:
                    loop.rewind(2, hold=True)
                    loop.redirect(max_new_tokens=1)
                elif isinstance(event, End):
                    loop.finish()
        assert loop.tokens[0].id == 300
        assert [token.index for token in loop.tokens] == [0, 1, 2]
        assert loop.text
        assert list(session.generate(start_index=0, max_new_tokens=3)) == loop.tokens


def test_infos(client: Client) -> None:
    assert client.encoder_info().fingerprint == client.decoder_info().fingerprint


def test_errors_come_through(client: Client) -> None:
    with pytest.raises(errors.InvalidArgumentError) as caught:
        client.translate(TEXT, "tlh")
    assert caught.value.reason == "UNKNOWN_LANGUAGE"
    with pytest.raises(TypeError, match="tempreature"):
        client.translate(TEXT, "ja", tempreature=1.0)  # type: ignore[call-arg]


def test_threads_share_a_client(client: Client, services: Services) -> None:
    texts: list[str] = []

    def work() -> None:
        texts.append(client.translate(TEXT, "ja", max_new_tokens=5)[0].text)

    threads = [threading.Thread(target=work) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == 10
    assert len(set(texts)) == 1
    eventually(lambda: nothing_is_held(services))


def test_guesses_and_passes_are_counted_and_change_nothing(client: Client) -> None:
    (plain,) = client.translate(TEXT, to="de", max_new_tokens=16, draft="off")
    assert (plain.end.drafted_tokens, plain.end.accepted_tokens) == (0, 0)
    for draft in ("copy", "jacobi"):
        (guessed,) = client.translate(TEXT, to="de", max_new_tokens=16, draft=draft)
        assert guessed.tokens == plain.tokens
        assert 0 <= guessed.end.accepted_tokens <= guessed.end.drafted_tokens
    (parallel,) = client.translate(TEXT, to="de", max_new_tokens=16, mode="parallel")
    assert [token.id for token in parallel.tokens] == [token.id for token in plain.tokens]
    (brief,) = client.translate(TEXT, to="de", max_new_tokens=6, mode="parallel", max_passes=1)
    assert brief.end.steps == 1
    with pytest.raises(errors.InvalidArgumentError, match=r"options\.max_passes: must be unset"):
        client.translate(TEXT, to="de", max_passes=3)
