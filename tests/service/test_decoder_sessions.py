"""A session in use: busy, cancelled, late, broken, closed meanwhile, slow to read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from decoder_service.service import DecoderService
from splitformer.generation.drafting import Drafting
from splitformer.v1 import decoder_service_pb2 as dec
from tests.conftest import Services
from tests.support.checkpoints import MAX_POSITIONS, make_checkpoint
from tests.support.gate import Gate, gate_of, held_up
from tests.support.rpc import Caller, collected, eventually, refused
from tests.support.servers import Running, ServerThread

ABORTED = grpc.StatusCode.ABORTED
NOT_FOUND = grpc.StatusCode.NOT_FOUND
SMALL_WINDOW = (("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0))


@pytest.fixture
def decoder(services: Services) -> DecoderService:
    return services.decoder.service


@pytest.fixture
def gate(decoder: DecoderService) -> Iterator[Gate]:
    """Holds the shared decoder's steps up."""
    with gate_of(decoder) as gate:
        yield gate


@pytest.fixture
def session(caller: Caller) -> Iterator[str]:
    session = caller.open(caller.memory())
    yield session
    caller.close_session(session)


def test_two_calls_at_once_on_a_session_are_refused(
    caller: Caller, gate: Gate, session: str
) -> None:
    call = held_up(caller, gate, session)
    for _ in range(2):
        with refused(ABORTED, "SESSION_BUSY"):
            caller.generate(session)
        with refused(ABORTED, "SESSION_BUSY"):
            caller.step(session, 0)
    gate.open()
    assert len(collected(call).tokens) == MAX_POSITIONS
    assert caller.session(session).state == dec.SESSION_STATE_IDLE


def test_a_second_call_waits_for_a_cancelled_one_to_leave(
    caller: Caller, gate: Gate, session: str, decoder: DecoderService
) -> None:
    held_up(caller, gate, session).cancel()
    running = decoder.sessions.get(session)
    eventually(lambda: running.generation is not None and running.generation.leaving)
    waiting = [caller.start(session, 0) for _ in range(3)]
    in_flight = caller.footprint
    eventually(lambda: in_flight()["decoder calls"] == 3)
    waiting[0].cancel()
    eventually(lambda: in_flight()["decoder calls"] == 2)
    assert running.generation is not None, "the engine still has it"
    gate.open()
    assert sorted(map(outcome, waiting[1:])) == ["aborted", str(MAX_POSITIONS)][::-1]


def outcome(call: Any) -> str:
    """How many tokens a generation gave, or the status it was refused with."""
    try:
        return str(len(collected(call).tokens))
    except grpc.RpcError:
        return str(call.code().name.lower())


def test_a_late_call_ends_with_its_deadline_and_the_session_can_go_on(
    caller: Caller, gate: Gate, session: str, services: Services
) -> None:
    labels = {
        "grpc_service": "splitformer.v1.DecoderService",
        "grpc_method": "Generate",
        "grpc_code": "DEADLINE_EXCEEDED",
    }
    before = services.decoder.metric("grpc_server_handled_total", **labels)
    call = held_up(caller, gate, session, timeout=0.3)
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    gate.open()
    eventually(lambda: caller.session(session).state == dec.SESSION_STATE_IDLE)
    eventually(lambda: services.decoder.metric("grpc_server_handled_total", **labels) == before + 1)
    assert len(caller.generate(session, 0).tokens) == MAX_POSITIONS


def test_closing_a_session_stops_what_runs_on_it(
    caller: Caller, gate: Gate, decoder: DecoderService
) -> None:
    session = caller.open(caller.memory())
    call = held_up(caller, gate, session)
    assert caller.close_session(session).freed_bytes > 0
    assert decoder.budget.used == 0
    gate.open()
    with refused(NOT_FOUND, "SESSION_NOT_FOUND"):
        list(call)
    eventually(lambda: decoder.engine.running == 0)
    with refused(NOT_FOUND, "SESSION_NOT_FOUND"):
        caller.close_session(session)
    assert caller.session(session).state == dec.SESSION_STATE_CLOSED


def test_a_waiting_call_finds_its_session_closed(
    caller: Caller, gate: Gate, decoder: DecoderService
) -> None:
    session = caller.open(caller.memory())
    held_up(caller, gate, session).cancel()
    running = decoder.sessions.get(session)
    eventually(lambda: running.generation is not None and running.generation.leaving)
    waiting = caller.start(session)
    eventually(lambda: caller.footprint()["decoder calls"] == 1)
    caller.close_session(session)
    gate.open()
    with refused(NOT_FOUND, "SESSION_NOT_FOUND"):
        list(waiting)


def test_a_fault_is_told_once_and_others_go_on(
    caller: Caller, gate: Gate, decoder: DecoderService
) -> None:
    memory = caller.memory()
    victim, other = caller.open(memory), caller.open(memory)
    gate.failures = 1
    with refused(grpc.StatusCode.INTERNAL, "INTERNAL") as refusal:
        caller.generate(victim)
    assert "request id" in refusal.error.message
    assert "broken" not in refusal.error.message
    with refused(NOT_FOUND, "SESSION_NOT_FOUND"):
        caller.generate(victim, 0)
    assert len(caller.generate(other, close_on_end=True).tokens) == MAX_POSITIONS
    assert decoder.budget.used == 0


def test_a_session_that_no_step_survives_harms_no_other(
    caller: Caller, gate: Gate, decoder: DecoderService
) -> None:
    memory = caller.memory()
    expected = caller.generate(caller.open(memory), close_on_end=True).tokens
    victim, others = caller.open(memory), [caller.open(memory) for _ in range(2)]
    gate.poison.append(decoder.sessions.get(victim).target.state)
    living = [held_up(caller, gate, each, close_on_end=True) for each in others]
    dying = held_up(caller, gate, victim, close_on_end=True)
    gate.open()  # the first step is the first session's alone; in the second all take part
    with refused(grpc.StatusCode.INTERNAL, "INTERNAL"):
        collected(dying)
    for call in living:
        assert collected(call).tokens == expected
    assert decoder.budget.used == 0


def test_a_slow_reader_pauses_only_itself(tmp_path: Path, servers: ServerThread) -> None:
    positions, window = 4096, 4
    model = make_checkpoint(
        tmp_path / "long", max_positions=positions, decoder_layers=1, d_model=16, heads=1
    )
    encoder = servers.start_encoder(model)
    decoder = servers.start_decoder(model, encoder, window_tokens=window)
    slow, quick = Caller(encoder, decoder, *SMALL_WINDOW), Caller(encoder, decoder)
    session = slow.open(slow.memory())
    call = slow.start(session)
    generation = first_generation(decoder, session)

    def stands_still_while_another_works() -> bool:
        before = quick.session(session).tokens
        quick.check_works()
        time.sleep(0.1)
        return bool(generation.paused and quick.session(session).tokens == before)

    eventually(stands_still_while_another_works)
    assert quick.session(session).tokens < positions
    step = 1 + Drafting().most
    assert len(generation._events) < window + step, "memory is bounded"
    assert [token.index for token in collected(call).tokens] == list(range(positions))
    slow.close_session(session)
    slow.close()
    quick.close()


def first_generation(decoder: Running[DecoderService], session: str) -> Any:
    found = decoder.service.sessions.get(session)
    eventually(lambda: found.generation is not None)
    return found.generation
