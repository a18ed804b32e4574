"""Opening a session: what is answered, and once for every request id."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import grpc
import pytest

from decoder_service.service import DecoderService
from splitformer.serving import handlers
from splitformer.v1 import decoder_service_pb2 as dec, tensor_pb2
from tests.conftest import Services
from tests.support.checkpoints import MAX_POSITIONS
from tests.support.rpc import Caller, eventually, refused, upload


@pytest.fixture
def decoder(services: Services) -> DecoderService:
    return services.decoder.service


def test_a_repeated_opening_gives_the_same_session(caller: Caller, decoder: DecoderService) -> None:
    memory = caller.memory()
    first = caller.open_stream(upload(memory, request_id="twice"))
    used = decoder.budget.used
    assert caller.open_stream(upload(memory, request_id="twice")) == first
    assert decoder.budget.used == used
    other = caller.open(memory, request_id="once")
    unnamed = [caller.open(memory), caller.open(memory)]
    assert len({first.session_id, other, *unnamed}) == 4
    for session in (first.session_id, other, *unnamed):
        caller.close_session(session)
    again = caller.open(memory, request_id="twice")
    assert again != first.session_id, "the first one was closed"
    caller.close_session(again)


@pytest.mark.parametrize("language", ["de", "tlh"])
def test_an_opening_is_answered_when_the_caller_has_ended(
    caller: Caller, decoder: DecoderService, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    monkeypatch.setattr(handlers, "_LAST_WORD_SECONDS", 60.0)
    reference, asked, ending = caller.reference(), threading.Event(), threading.Event()
    requests = unended(reference, language, asked, ending)
    answer = caller.decoder.OpenSession.future(requests, timeout=30)
    asked.wait(30)
    if language == "de":
        eventually(lambda: len(decoder.sessions) == 1)
    time.sleep(0.1)  # a proxy takes an answer before the end for a call that broke off
    assert not answer.done()
    ending.set()
    if language == "de":
        caller.close_session(answer.result().session_id)
    else:
        invalid = grpc.StatusCode.INVALID_ARGUMENT
        with refused(invalid, "UNKNOWN_LANGUAGE", "target_language", "tlh"):
            answer.result()
    caller.release(reference)


def test_a_caller_who_does_not_end_is_answered_all_the_same(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "_LAST_WORD_SECONDS", 0.05)
    reference, ending = caller.reference(), threading.Event()
    requests = unended(reference, "de", threading.Event(), ending)
    try:
        caller.close_session(caller.decoder.OpenSession(requests, timeout=30).session_id)
    finally:
        ending.set()
    caller.release(reference)


def unended(
    reference: tensor_pb2.MemoryReference,
    language: str,
    asked: threading.Event,
    ending: threading.Event,
) -> Iterator[dec.OpenSessionRequest]:
    """The messages of an opening whose stream stays open for a while."""
    header = dec.SessionHeader(reference=reference, target_language=language)
    yield dec.OpenSessionRequest(header=header)
    asked.set()
    ending.wait(60)


def test_concurrent_openings_with_one_id_give_one_session(
    caller: Caller, decoder: DecoderService
) -> None:
    memory, opened = caller.memory(), list[str]()
    threads = [
        threading.Thread(target=lambda: opened.append(caller.open(memory, request_id="same")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 8
    assert len(set(opened)) == 1
    assert len(decoder.sessions) == 1
    caller.close_session(opened[0])


def test_an_opening_that_fails_leaves_its_id_to_the_next(
    caller: Caller, decoder: DecoderService
) -> None:
    requests = upload(caller.memory(), request_id="retry")
    with refused(grpc.StatusCode.DATA_LOSS, "MEMORY_TRUNCATED"):
        caller.open_stream(requests[:2])
    opened = caller.open_stream(requests)
    caller.close_session(opened.session_id)
    assert decoder.budget.used == 0


def test_openings_that_wait_for_one_that_fails_take_over(
    caller: Caller, decoder: DecoderService
) -> None:
    requests, proceed = upload(caller.memory(), request_id="handover"), threading.Event()

    def breaking() -> Iterator[dec.OpenSessionRequest]:
        yield from requests[:2]
        proceed.wait()

    first = caller.decoder.OpenSession.future(breaking())
    eventually(lambda: decoder.budget.used > 0)
    waiting = [caller.decoder.OpenSession.future(iter(requests)) for _ in range(3)]
    eventually(lambda: caller.footprint()["decoder calls"] == 4)
    proceed.set()
    with refused(grpc.StatusCode.DATA_LOSS, "MEMORY_TRUNCATED"):
        first.result()
    assert len({call.result().session_id for call in waiting}) == 1
    caller.close_session(waiting[0].result().session_id)


def test_what_an_opening_answers(caller: Caller, services: Services) -> None:
    memory = caller.memory()
    opened = caller.open_stream(upload(memory))
    assert len(opened.session_id) == 32
    assert opened.endpoint == ""
    assert opened.replica == services.decoder.address
    assert opened.idle_timeout_ms == 120_000
    assert opened.fingerprint.model == memory[0].fingerprint.model
    described = caller.session(opened.session_id)
    assert described.state == dec.SESSION_STATE_IDLE
    assert described.size_bytes == opened.size_bytes > 0
    assert described.source_positions == memory[0].shape[0]
    assert described.target_language == "de"
    assert 0 < described.expires_in_ms <= 120_000
    load = caller.decoder.GetLoad(dec.DecoderServiceGetLoadRequest()).load
    assert load.used_bytes == opened.size_bytes
    assert caller.close_session(opened.session_id).freed_bytes == opened.size_bytes


def test_model_info_says_what_is_so(caller: Caller) -> None:
    model = caller.decoder.GetModelInfo(dec.DecoderServiceGetModelInfoRequest()).model
    assert (model.name, model.layers, model.max_positions) == ("tiny-0", 2, MAX_POSITIONS)
    assert list(model.target_languages) == ["ja", "de", "fr", "es", "zh_CN"]
    assert model.memory_dtype == tensor_pb2.DATA_TYPE_F16
    assert model.fingerprint.model == caller.memory()[0].fingerprint.model
    assert model.fingerprint.numerics.startswith(f"{model.precision}/f16/")
