"""EncodeBatch: many sources on one stream, answers by tag, failures one by one, bounds held."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import grpc
import pytest

from encoder_service.engine import EncoderEngine
from splitformer import wire
from splitformer.errors import Code
from splitformer.v1 import encoder_service_pb2 as enc
from tests.conftest import Services
from tests.support.checkpoints import MAX_POSITIONS
from tests.support.rpc import TEXT, Caller, eventually, refused
from tests.support.servers import ServerThread

INLINE, REFERENCE = enc.MEMORY_DELIVERY_INLINE, enc.MEMORY_DELIVERY_REFERENCE


def source(tag: int, text: str = TEXT, delivery: Any = INLINE) -> enc.EncodeBatchRequest:
    request = enc.EncodeRequest(source=enc.Source(text=text), delivery=delivery)
    return enc.EncodeBatchRequest(tag=tag, request=request)


def start(caller: Caller, requests: Iterable[enc.EncodeBatchRequest]) -> Any:
    return caller.encoder.EncodeBatch(iter(requests), timeout=30.0)


def answers(
    caller: Caller, requests: Iterable[enc.EncodeBatchRequest]
) -> dict[int, enc.EncodeBatchResponse]:
    received = list(start(caller, requests))
    by_tag = {answer.tag: answer for answer in received}
    assert len(by_tag) == len(received)
    return by_tag


def shut(engine: EncoderEngine) -> None:
    """From now on every source has to wait for room in the queue."""
    engine._limits = replace(engine._limits, queue=0)


def test_hundreds_of_sources_come_back_by_tag_with_the_bits_of_single_ones(
    caller: Caller,
) -> None:
    texts = [" ".join([TEXT] * (1 + number % 3)) for number in range(300)]
    found = answers(caller, (source(7 * n, text) for n, text in enumerate(texts)))
    assert sorted(found) == [7 * n for n in range(300)]
    expected = {text: caller.memory(text)[1] for text in set(texts)}
    for number, text in enumerate(texts):
        inline = found[7 * number].response.inline
        assert wire.tensor_bytes(inline.tensor) == expected[text]


def test_references_are_leased_one_by_one(caller: Caller, services: Services) -> None:
    found = answers(caller, (source(n, delivery=REFERENCE) for n in range(5)))
    assert services.encoder.service.store.leases == 5
    for answer in found.values():
        caller.release(answer.response.reference)


def test_a_source_that_fails_does_not_disturb_the_others(caller: Caller) -> None:
    long = enc.EncodeRequest(source=enc.Source(tokens=enc.TokenIds(ids=[5] * (MAX_POSITIONS + 1))))
    requests = [
        source(1),
        enc.EncodeBatchRequest(tag=2, request=long),
        source(3, ""),
        enc.EncodeBatchRequest(tag=4),
        source(5),
    ]
    found = answers(caller, requests)
    assert found[1].response.inline == found[5].response.inline
    reasons = {tag: found[tag].failure.reason for tag in (2, 3, 4)}
    assert reasons == {2: "SOURCE_TOO_LONG", 3: "EMPTY_SOURCE", 4: "EMPTY_SOURCE"}
    assert {found[tag].failure.code for tag in (2, 3, 4)} == {int(Code.INVALID_ARGUMENT)}
    assert "source.tokens.ids" in found[2].failure.message


def test_a_failing_encoder_is_told_without_its_secrets(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: EncoderEngine, batch: object) -> Any:
        raise RuntimeError("secret")

    with monkeypatch.context() as patch:
        patch.setattr(EncoderEngine, "encode_batch", broken)
        failure = answers(caller, [source(1)])[1].failure
    assert failure.code == int(Code.INTERNAL)
    assert "secret" not in failure.message


def test_an_empty_stream_is_an_empty_answer(caller: Caller) -> None:
    assert answers(caller, []) == {}


def test_a_tag_that_is_in_flight_is_refused(servers: ServerThread, services: Services) -> None:
    running = servers.start_encoder(services.model)
    caller = Caller(running, None)
    shut(running.service._engine)
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_TAG", "tag", 1):
        list(start(caller, [source(1), source(1)]))
    eventually(lambda: set(caller.footprint().values()) == {0})
    caller.close()


def test_sources_wait_while_the_queue_is_full(servers: ServerThread, services: Services) -> None:
    running = servers.start_encoder(services.model, max_queue=2)
    caller = Caller(running, None)
    found = answers(caller, (source(n) for n in range(20)))
    assert all(answer.HasField("response") for answer in found.values())
    caller.close()


def stands_still(counter: Any) -> bool:
    """True if a counter does not move for a moment."""
    before = counter.value
    time.sleep(0.5)
    return bool(counter.value == before)


def test_a_stream_that_never_reads_is_not_read_beyond_its_bound(
    servers: ServerThread, services: Services
) -> None:
    running = servers.start_encoder(services.model, max_stream_sources=4, drain_seconds=0)
    caller = Caller(running, None)
    sent, done = 0, threading.Event()
    text = " ".join([TEXT] * 3)

    def endless() -> Iterator[enc.EncodeBatchRequest]:
        nonlocal sent
        while not done.is_set():
            yield source(sent, text)
            sent += 1

    call = start(caller, endless())
    eventually(lambda: running.service.metrics.sources.value > 4)
    eventually(lambda: stands_still(running.service.metrics.sources))
    assert running.service.store.reserved_bytes == 0
    assert running.service._engine.open == 0
    done.set()
    call.cancel()
    eventually(lambda: set(caller.footprint().values()) == {0})
    caller.close()


def test_a_cancelled_stream_drops_what_waits(servers: ServerThread, services: Services) -> None:
    running = servers.start_encoder(services.model)
    caller = Caller(running, None)
    shut(running.service._engine)
    call = start(caller, (source(n) for n in range(50)))
    eventually(lambda: caller.footprint()["encoder calls"] == 1)
    call.cancel()
    eventually(lambda: set(caller.footprint().values()) == {0})
    caller.close()
