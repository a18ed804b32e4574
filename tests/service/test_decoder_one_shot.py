"""Decode: what OpenSession and Generate give, in one call that leaves nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any

import grpc
import pytest

from splitformer.v1 import decoder_service_pb2 as dec, tensor_pb2
from tests.conftest import Services
from tests.support.gate import gate_of
from tests.support.rpc import Caller, Generated, Memory, collected, eventually, refused, upload
from tests.support.servers import ServerThread

INVALID = grpc.StatusCode.INVALID_ARGUMENT
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"max_new_tokens": 5},
    {"temperature": 1.0, "top_k": 50, "seed": 7},
)


def one_shot(
    memory: Memory | tensor_pb2.MemoryReference,
    options: dict[str, Any] | None = None,
    per_message: int = 0,
    **session: Any,
) -> list[dec.DecodeRequest]:
    """The messages of a one-shot."""
    session.setdefault("target_language", "de")
    chunks: list[tensor_pb2.MemoryChunk] = []
    if isinstance(memory, tensor_pb2.MemoryReference):
        session["reference"] = memory
    else:
        chunks = [request.chunk for request in upload(memory)[1:]]
        session["upload"] = memory[0]
    header = dec.DecodeHeader(
        session=dec.SessionHeader(**session),
        options=dec.GenerationOptions(**options or {}),
        max_tokens_per_message=per_message,
    )
    rest = (dec.DecodeRequest(chunk=chunk) for chunk in chunks)
    return [dec.DecodeRequest(header=header), *rest]


def start(caller: Caller, requests: Iterable[dec.DecodeRequest]) -> Any:
    return caller.decoder.Decode(iter(requests), timeout=30.0)


def decode(caller: Caller, requests: Iterable[dec.DecodeRequest]) -> Generated:
    return collected(start(caller, requests))


@pytest.mark.parametrize("options", OPTIONS)
def test_it_gives_what_a_session_gives_by_upload_and_by_reference(
    caller: Caller, options: dict[str, Any]
) -> None:
    memory, reference = caller.memory(), caller.reference()
    expected = caller.generate(caller.open(memory), close_on_end=True, **options)
    for source in (memory, reference):
        answer = decode(caller, one_shot(source, options))
        assert answer.tokens == expected.tokens
        assert answer.end.reason == expected.end.reason
        assert answer.end.steps == expected.end.steps
        assert answer.end.text == expected.end.text
    caller.release(reference)


def test_nothing_stays_after_the_end(caller: Caller, services: Services) -> None:
    decoder = services.decoder
    ended = decoder.metric("splitformer_decoder_sessions_closed_total", how="ended")
    decode(caller, one_shot(caller.memory()))
    assert len(decoder.service.sessions) == decoder.service.budget.used == 0
    assert decoder.metric("splitformer_decoder_sessions_closed_total", how="ended") == ended + 1


def test_a_prefix_and_several_tokens_a_message_are_taken(caller: Caller) -> None:
    memory = caller.memory()
    prefix = dec.TargetPrefix(text="Öffnen")
    session = caller.open(memory, target_prefix=prefix)
    expected = caller.generate(session, close_on_end=True)
    parts = list(start(caller, one_shot(memory, None, 4, target_prefix=prefix)))
    assert collected(parts).ids == expected.ids
    assert max(len(part.tokens.tokens) for part in parts) <= 4


def test_a_cancelled_one_shot_frees_slot_and_bytes(caller: Caller, services: Services) -> None:
    service = services.decoder.service
    with gate_of(service) as gate:
        gate.shut()
        call = start(caller, one_shot(caller.memory()))
        eventually(lambda: service.engine.running == 1)
        assert service.budget.used > 0
        call.cancel()
        eventually(lambda: service.budget.used == 0)
        gate.open()
        eventually(lambda: service.engine.running == 0)


def test_a_one_shot_cancelled_while_its_memory_comes_frees_its_bytes(
    caller: Caller, services: Services
) -> None:
    requests, done = one_shot(caller.memory()), threading.Event()
    budget = services.decoder.service.budget

    def hanging() -> Iterator[dec.DecodeRequest]:
        yield from requests[:2]
        done.wait()

    call = caller.decoder.Decode(hanging())
    eventually(lambda: budget.used > 0)
    call.cancel()
    eventually(lambda: budget.used == 0)
    done.set()


def test_an_upload_that_stalls_is_given_up(servers: ServerThread, services: Services) -> None:
    decoder = servers.start_decoder(services.model, fetch_seconds=0.2)
    caller = Caller(services.encoder, decoder)
    requests = one_shot(caller.memory())

    def stalling() -> Iterator[dec.DecodeRequest]:
        yield from requests[:2]
        eventually(lambda: decoder.service.budget.used > 0)
        eventually(lambda: decoder.service.budget.used == 0)

    with refused(grpc.StatusCode.DEADLINE_EXCEEDED, "UPLOAD_STALLED"):
        decode(caller, stalling())
    caller.check_works()
    caller.close()


def test_a_failed_step_is_internal_and_leaves_nothing(caller: Caller, services: Services) -> None:
    with gate_of(services.decoder.service) as gate:
        gate.failures = 1
        with refused(grpc.StatusCode.INTERNAL, "INTERNAL"):
            decode(caller, one_shot(caller.memory()))


def test_bad_requests_are_refused_as_for_sessions(caller: Caller) -> None:
    memory = caller.memory()
    whole = one_shot(memory)
    with refused(INVALID, "NO_HEADER", "header"):
        decode(caller, [])
    with refused(INVALID, "NO_HEADER", "header"):
        decode(caller, whole[1:])
    with refused(INVALID, "NO_CHUNK", "chunk", "header"):
        decode(caller, [whole[0], *whole])
    with refused(INVALID, "NO_MEMORY", "header.memory"):
        decode(caller, [dec.DecodeRequest(header=dec.DecodeHeader())])
    with refused(INVALID, "UNKNOWN_LANGUAGE", "target_language", "xx"):
        decode(caller, one_shot(memory, target_language="xx"))
    with refused(INVALID, "BAD_OPTION", "options.top_k", 0):
        decode(caller, one_shot(memory, {"top_k": 0}))
    with refused(INVALID, "BAD_OPTION", "max_tokens_per_message", -1):
        decode(caller, one_shot(memory, per_message=-1))
    with refused(INVALID, "BAD_OPTION", "header.session.request_id", "again"):
        decode(caller, one_shot(memory, request_id="again"))
    with refused(grpc.StatusCode.DATA_LOSS, "MEMORY_TRUNCATED"):
        decode(caller, whole[:-1])
    with refused(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"):
        decode(caller, one_shot(memory, model="nope"))


def test_the_budget_is_that_of_sessions(servers: ServerThread, services: Services) -> None:
    decoder = servers.start_decoder(services.model, memory_bytes=1000)
    caller = Caller(services.encoder, decoder)
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVER_BUDGET"):
        decode(caller, one_shot(caller.memory()))
    assert decoder.service.budget.used == 0
    caller.close()
