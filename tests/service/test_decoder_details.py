"""Alternatives, attention and alignments: told with each token, without changing any."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from splitformer.generation import Produced
from splitformer.v1 import decoder_service_pb2 as dec
from tests.conftest import Services
from tests.support.reference import Reference
from tests.support.rpc import TEXT, Caller, Memory, eventually
from tests.support.servers import ServerThread

SAMPLED: dict[str, Any] = {"temperature": 1.0, "top_k": 50, "seed": 7}
ALL: dict[str, Any] = {"alternatives": 3, "attention": True, "alignments": True}
MODES = pytest.mark.parametrize("options", [{}, SAMPLED], ids=["greedy", "sampled"])


@pytest.fixture
def session(caller: Caller) -> Iterator[str]:
    session = caller.open(caller.memory())
    yield session
    caller.close_session(session)


def assert_told(token: dec.Token, expected: Produced, tolerance: float = 0) -> None:
    """What the engine tells is what the model in process tells; to the bit if that is promised."""
    details = expected.details
    assert details is not None
    assert token.id == expected.id
    assert token.log_probability == pytest.approx(
        expected.log_probability, abs=tolerance, rel=tolerance
    )
    assert len(token.alternatives) == len(details.alternatives)
    for theirs, ours in zip(token.alternatives, details.alternatives, strict=True):
        assert (theirs.id, theirs.text) == (ours.id, ours.text)
        assert theirs.log_probability == pytest.approx(
            ours.log_probability, abs=tolerance, rel=tolerance
        )
    assert list(token.attention) == pytest.approx(
        list(details.attention), abs=tolerance, rel=tolerance
    )
    assert tuple(token.aligned_source) == details.aligned


@MODES
def test_over_the_wire_is_in_process_and_changes_no_token(
    caller: Caller, session: str, reference: Reference, options: dict[str, Any]
) -> None:
    plain = reference.target(TEXT, "de", **options).produced
    told = reference.target(TEXT, "de", **options, **ALL).produced
    generated = caller.generate(session, **options, **ALL)
    assert [(t.id, t.log_probability) for t in generated.tokens] == [
        (p.id, p.log_probability) for p in plain
    ]
    for token, expected in zip(generated.tokens, told, strict=True):
        assert_told(token, expected)


@pytest.mark.parametrize(("precision", "kernels"), [("int8", "auto"), ("fp32", "torch")])
def test_every_arithmetic_tells(
    services: Services, servers: ServerThread, precision: str, kernels: str
) -> None:
    arithmetic = {"precision": precision, "kernels": kernels}
    encoder = servers.start_encoder(services.model, **arithmetic)
    caller = Caller(encoder, servers.start_decoder(services.model, encoder, **arithmetic))
    told = Reference(services.model, precision, kernels).target(TEXT, "de", **ALL).produced
    generated = caller.generate(caller.open(caller.memory()), close_on_end=True, **ALL)
    for token, expected in zip(generated.tokens, told, strict=True):
        assert_told(token, expected, tolerance=1e-5 if kernels == "torch" else 0)
    caller.close()


@MODES
def test_what_is_told(caller: Caller, session: str, options: dict[str, Any]) -> None:
    rows = caller.session(session).source_positions
    for token in caller.generate(session, max_new_tokens=20, **options, **ALL).tokens:
        ids = [other.id for other in token.alternatives]
        assert len({*ids, token.id}) == 4, "three, and not the one that was taken"
        scores = [other.log_probability for other in token.alternatives]
        assert scores == sorted(scores, reverse=True)
        assert options or token.log_probability >= scores[0]
        assert len(token.attention) == rows
        assert sum(token.attention) == pytest.approx(1, abs=1e-5)
        assert token.aligned_source
        assert rows - 1 not in token.aligned_source, "the end token has no text"
        most = max(token.attention[:-1])
        assert {i for i, w in enumerate(token.attention[:-1]) if w == most} <= {
            *token.aligned_source
        }


def test_each_is_told_only_if_it_is_asked_for(caller: Caller) -> None:
    memory = caller.memory()

    def told(**options: Any) -> tuple[bool, bool, bool]:
        session = caller.open(memory)
        (token,) = caller.generate(session, max_new_tokens=1, close_on_end=True, **options).tokens
        return bool(token.alternatives), bool(token.attention), bool(token.aligned_source)

    assert told() == (False, False, False)
    assert told(alternatives=0) == (False, False, False)
    assert told(alternatives=1) == (True, False, False)
    assert told(attention=True) == (False, True, False)
    assert told(alignments=True) == (False, False, True)


def test_the_record_keeps_what_was_told(caller: Caller) -> None:
    session = caller.open(caller.memory())
    first = caller.generate(session, max_new_tokens=4, **ALL)
    assert caller.step(session, 2).token == first.tokens[2]
    again = caller.generate(session, 0, max_new_tokens=4, close_on_end=True)
    assert again.tokens == first.tokens
    assert caller.generate(session, 1, max_new_tokens=2).tokens == first.tokens[1:3]


def test_steps_and_forced_tokens_tell_too(caller: Caller, session: str) -> None:
    first = caller.step(session, 0, **ALL).token
    other = first.alternatives[1]
    twin = caller.open(caller.memory())
    taken = caller.step(twin, 0, forced_token=other.id, **ALL).token
    assert (taken.id, taken.text, taken.log_probability) == (
        other.id,
        other.text,
        other.log_probability,
    )
    assert first.id == taken.alternatives[0].id
    assert list(taken.attention) == list(first.attention)
    caller.close_session(twin)


def test_without_source_tokens_every_position_may_align(caller: Caller) -> None:
    header, data = caller.memory()
    del header.source_tokens[:]
    blind: Memory = (header, data)
    session = caller.open(blind)
    generated = caller.generate(session, max_new_tokens=5, close_on_end=True, **ALL)
    for token in generated.tokens:
        most = max(range(len(token.attention)), key=lambda i: token.attention[i])
        assert most in token.aligned_source


# --- the budget -----------------------------------------------------------------------------------


def test_what_is_told_counts_for_as_long_as_the_session_lives(
    caller: Caller, services: Services
) -> None:
    decoder = services.decoder
    budget, memory = decoder.service.budget, caller.memory()
    rows = memory[0].shape[0]
    session = caller.open(memory)
    before = budget.used
    caller.generate(session, max_new_tokens=5, suppressed_tokens=[1])
    eventually(lambda: budget.used == before)
    caller.generate(session, max_new_tokens=5, suppressed_tokens=[1], attention=True)
    eventually(lambda: budget.used == before + 5 * 4 * rows)
    caller.step(session, 10, attention=True, suppressed_tokens=[1])
    eventually(lambda: budget.used == before + 6 * 4 * rows)
    fork = caller.decoder.ForkSession(
        dec.ForkSessionRequest(session_id=session, keep_tokens=6)
    ).session.session_id
    own = caller.session(fork).size_bytes - decoder.service.rules.memory_bytes(rows)
    assert budget.used == before + 6 * 4 * rows + own + 4 * rows
    for each in (session, fork):
        caller.close_session(each)
    eventually(lambda: budget.used == 0)


def test_rewinding_gives_back_what_was_told(caller: Caller, services: Services) -> None:
    budget, session = services.decoder.service.budget, caller.open(caller.memory())
    before = budget.used
    options = dec.GenerationOptions(max_new_tokens=4, suppressed_tokens=[1], attention=True)
    start = dec.GenerateRequest(session_id=session, options=options)
    requests = [
        dec.InteractRequest(start=start, hold=True),
        dec.InteractRequest(redirect=options, hold=True),
        dec.InteractRequest(redirect=options),
    ]
    assert [*caller.decoder.Interact(iter(requests))][-1].end.total_tokens == 4
    eventually(lambda: budget.used > before)
    plain = dec.GenerateRequest(session_id=session, options=dec.GenerationOptions(max_new_tokens=1))
    back = [
        dec.InteractRequest(start=plain, hold=True),
        dec.InteractRequest(rewind=dec.Rewind(index=0)),
    ]
    assert [*caller.decoder.Interact(iter(back))][-1].end.total_tokens == 5
    eventually(lambda: budget.used == before)
    caller.close_session(session)


def test_what_there_is_no_room_for_is_refused(services: Services, servers: ServerThread) -> None:
    decoder = servers.start_decoder(services.model, services.encoder, memory_bytes=400_000)
    caller = Caller(services.encoder, decoder)
    session = caller.open(caller.memory())
    used = decoder.service.budget.used
    with pytest.raises(grpc.RpcError) as caught:
        caller.generate(session, alternatives=100)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details().startswith("options.alternatives: needs ")
    assert decoder.service.budget.used == used
    assert len(caller.generate(session, alternatives=100, max_new_tokens=3).tokens) == 3
    caller.close_session(session)
    caller.close()
