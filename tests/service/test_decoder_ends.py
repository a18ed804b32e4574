"""The end of a session: closed at its end, by its caller, by a fault; and what is remembered."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from decoder_service.service import DecoderService
from splitformer.v1 import decoder_service_pb2 as dec
from tests.conftest import Services
from tests.support.checkpoints import MAX_POSITIONS
from tests.support.gate import gate_of, held_up
from tests.support.rpc import Caller, Generated, eventually, refused
from tests.support.servers import ServerThread

NOT_FOUND = grpc.StatusCode.NOT_FOUND
ENDING: dict[str, Any] = {"temperature": 1.0, "seed": 7}


@pytest.fixture
def decoder(services: Services) -> DecoderService:
    return services.decoder.service


@pytest.mark.parametrize(
    "options", [{}, ENDING, {"temperature": 1.0}], ids="greedy eos drawn".split()
)
def test_a_session_closed_at_its_end_is_remembered(
    caller: Caller, decoder: DecoderService, options: dict[str, Any]
) -> None:
    session = caller.open(caller.memory())
    whole = caller.generate(session, close_on_end=True, **options)
    assert decoder.budget.used == 0
    for start in (0, 1, len(whole.tokens)):
        late = caller.generate(session, start, close_on_end=True, **options)
        assert late.tokens == whole.tokens[start:]
        assert (late.end.reason, late.end.seed) == (whole.end.reason, whole.end.seed)
        assert late.end.log_probability == whole.end.log_probability
        assert late.end.total_tokens == len(whole.tokens)
    cut = caller.generate(session, 2, max_new_tokens=3, **options)
    assert (cut.tokens, cut.end.reason) == (whole.tokens[2:5], dec.END_REASON_LENGTH)
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "START_INDEX_AHEAD"):
        caller.generate(session, len(whole.tokens) + 1)
    with refused(NOT_FOUND, "SESSION_NOT_FOUND"):
        caller.generate(session)
    described = caller.session(session)
    assert described.state == dec.SESSION_STATE_CLOSED
    assert (described.tokens, described.text) == (len(whole.tokens), whole.text)
    assert described.size_bytes == 0


def test_steps_on_a_closed_session_come_from_its_record(caller: Caller) -> None:
    session = caller.open(caller.memory())
    whole = caller.generate(session, close_on_end=True, **ENDING)
    steps = [caller.step(session, index).token for index in range(len(whole.tokens))]
    assert steps == whole.tokens
    end = caller.step(session, len(steps)).end
    assert (end.reason, end.log_probability) == (dec.END_REASON_EOS, whole.end.log_probability)
    with refused(NOT_FOUND, "SESSION_NOT_FOUND"):
        caller.step(session, len(steps) + 1)


def test_a_session_closed_by_its_caller_is_not_replayed(caller: Caller) -> None:
    session = caller.open(caller.memory())
    tokens = caller.generate(session, max_new_tokens=3).tokens
    caller.close_session(session)
    with refused(NOT_FOUND, "SESSION_NOT_FOUND"):
        caller.generate(session, 3)
    assert caller.step(session, 1).token == tokens[1]


def test_a_record_is_forgotten(servers: ServerThread, services: Services) -> None:
    running = servers.start_decoder(services.model, record_seconds=0.2)
    caller = Caller(services.encoder, running)
    session = caller.open(caller.memory())
    caller.generate(session, close_on_end=True)

    def forgotten() -> bool:
        try:
            caller.generate(session, 0)
        except grpc.RpcError as error:
            return error.code() is NOT_FOUND
        return False

    eventually(forgotten)
    with refused(NOT_FOUND, "SESSION_NOT_FOUND"):
        caller.session(session)
    eventually(lambda: not running.service.sessions._records)
    caller.close()


def test_a_generation_cut_short_by_its_reader_does_not_close(
    caller: Caller, decoder: DecoderService
) -> None:
    session = caller.open(caller.memory())
    call = caller.start(session, close_on_end=True)
    head = [next(call).tokens.tokens[0]]
    call.cancel()
    eventually(lambda: decoder.engine.running == 0)
    tail = caller.generate(session, 1, close_on_end=True)
    assert len(Generated([*head, *tail.tokens], tail.end).ids) == MAX_POSITIONS


def test_ends_are_counted_once(caller: Caller, services: Services) -> None:
    def counts() -> dict[str, float]:
        name = "splitformer_decoder_generations_total"
        return {
            how: services.decoder.metric(name, how=how)
            for how in ("eos", "length", "cancelled", "failed")
        }

    before, memory = counts(), caller.memory()
    sessions = [caller.open(memory) for _ in range(3)]
    caller.generate(sessions[0], **ENDING)
    caller.generate(sessions[1], max_new_tokens=3)
    caller.step(sessions[1], 3)
    with gate_of(services.decoder.service) as gate:
        held_up(caller, gate, sessions[2]).cancel()
        eventually(lambda: caller.footprint()["decoder calls"] == 0)  # else it may run to its end
        gate.open()
        eventually(lambda: caller.session(sessions[2]).state == dec.SESSION_STATE_IDLE)
        gate.failures = 1
        with refused(grpc.StatusCode.INTERNAL, "INTERNAL"):
            caller.generate(sessions[2])
    after = counts()
    gained = {how: after[how] - before[how] for how in after}
    assert gained == {"eos": 1, "length": 2, "cancelled": 1, "failed": 1}
    for session in sessions[:2]:
        caller.close_session(session)
