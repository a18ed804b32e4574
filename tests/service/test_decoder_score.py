"""Score: log-probabilities of a given target are those of stepping, to the bit; nothing changes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from splitformer.v1 import decoder_service_pb2 as dec, encoder_service_pb2 as enc
from tests.conftest import Services
from tests.support.checkpoints import LANGUAGES, MAX_POSITIONS, SENTENCES
from tests.support.gate import gate_of, held_up
from tests.support.rpc import TEXT, Caller, eventually, refused
from tests.support.servers import ServerThread

INVALID = grpc.StatusCode.INVALID_ARGUMENT
ENDING: dict[str, Any] = {"temperature": 1.0, "seed": 7}


@pytest.fixture
def session(caller: Caller) -> Iterator[str]:
    session = caller.open(caller.memory())
    yield session
    caller.close_session(session)


def by_ids(ids: list[int]) -> dec.TargetPrefix:
    return dec.TargetPrefix(tokens=enc.TokenIds(ids=ids))


def score(
    caller: Caller, session: str, target: list[int] | str, include_end: bool = False
) -> dec.ScoreResponse:
    prefix = dec.TargetPrefix(text=target) if isinstance(target, str) else by_ids(target)
    request = dec.ScoreRequest(session_id=session, target=prefix, include_end=include_end)
    return caller.decoder.Score(request, timeout=30)


@pytest.mark.parametrize("language", LANGUAGES[:2])
@pytest.mark.parametrize("options", [{}, ENDING], ids=["to the limit", "to the end"])
def test_it_is_what_stepping_gave(caller: Caller, language: str, options: dict[str, Any]) -> None:
    for text in SENTENCES[:3]:
        session = caller.open(caller.memory(text), language)
        generated = caller.generate(session, **options)
        ended = generated.end.reason == dec.END_REASON_EOS
        scored = score(caller, session, generated.ids, include_end=ended)
        tokens = [(t.index, t.id, t.text, t.log_probability) for t in scored.tokens]
        expected = [(t.index, t.id, t.text, t.log_probability) for t in generated.tokens]
        assert tokens[: len(expected)] == expected
        if ended:
            (end,) = scored.tokens[len(expected) :]
            assert (end.id, end.log_probability) == (1, generated.end.log_probability)
        total = sum(token.log_probability for token in scored.tokens)
        assert scored.log_probability == pytest.approx(total, rel=1e-6)
        caller.close_session(session)


@pytest.mark.parametrize("arithmetic", [{"precision": "int8"}, {"kernels": "torch"}], ids=str)
def test_every_arithmetic_scores(
    services: Services, servers: ServerThread, arithmetic: dict[str, str]
) -> None:
    encoder = servers.start_encoder(services.model, **arithmetic)
    caller = Caller(encoder, servers.start_decoder(services.model, encoder, **arithmetic))
    session = caller.open(caller.memory())
    generated = caller.generate(session)
    scored = score(caller, session, generated.ids)
    tolerance = 1e-4 if "kernels" in arithmetic else 0
    assert [token.log_probability for token in scored.tokens] == pytest.approx(
        [token.log_probability for token in generated.tokens], abs=tolerance, rel=0
    )
    caller.close()


def test_text_is_tokenised(caller: Caller, session: str, services: Services) -> None:
    scored = score(caller, session, "Über größere Änderungen", include_end=True)
    assert "".join(token.text for token in scored.tokens) == "Über größere Änderungen"
    ids = [token.id for token in scored.tokens]
    assert score(caller, session, ids[:-1], include_end=True) == scored
    only_end = score(caller, session, "", include_end=True)
    assert [token.id for token in only_end.tokens] == [1]


def test_the_sessions_own_target_stays(caller: Caller) -> None:
    memory, prefix = caller.memory(), dec.TargetPrefix(text="Open the")
    plain, prefixed = caller.open(memory), caller.open(memory, target_prefix=prefix)
    whole = caller.generate(plain)
    head = caller.generate(prefixed, max_new_tokens=5)
    before = caller.footprint()["decoder bytes"]
    assert score(caller, prefixed, whole.ids).tokens[0] == whole.tokens[0], "no prefix counts"
    assert caller.footprint()["decoder bytes"] == before
    tail = caller.generate(prefixed)
    twin = caller.open(memory, target_prefix=prefix)
    assert caller.generate(twin).ids == head.ids + tail.ids
    for session in (plain, prefixed, twin):
        caller.close_session(session)


def test_a_session_can_be_scored_while_it_generates(caller: Caller, services: Services) -> None:
    session = caller.open(caller.memory())
    expected = score(caller, session, [300, 301, 302])
    with gate_of(services.decoder.service) as gate:
        call = held_up(caller, gate, session)
        answers: list[dec.ScoreResponse] = []
        asking = threading.Thread(
            target=lambda: answers.append(score(caller, session, [300, 301, 302]))
        )
        asking.start()
        eventually(lambda: caller.footprint()["decoder calls"] >= 2)
        gate.open()
        asking.join()
        generated = list(call)
    assert answers == [expected]
    assert generated[-1].HasField("end")
    caller.close_session(session)


def test_many_at_once_are_each_what_they_are_alone(caller: Caller) -> None:
    session = caller.open(caller.memory())
    targets = [[300 + (i * j) % 70 for j in range(1, 3 + 4 * i)] for i in range(10)]
    alone = [score(caller, session, target) for target in targets]
    together: dict[int, dec.ScoreResponse] = {}

    def ask(i: int) -> None:
        together[i] = score(caller, session, targets[i])

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(10)]
    twin = caller.open(caller.memory(), "fr")
    call = caller.start(twin)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    list(call)
    assert [together[i] for i in range(10)] == alone
    for each in (session, twin):
        caller.close_session(each)


def test_the_longest_target_is_scored_and_a_longer_one_refused(
    caller: Caller, session: str
) -> None:
    assert len(score(caller, session, [300] * MAX_POSITIONS).tokens) == MAX_POSITIONS
    whole = score(caller, session, [300] * (MAX_POSITIONS - 1), include_end=True)
    assert len(whole.tokens) == MAX_POSITIONS
    for count, include_end in ((MAX_POSITIONS + 1, False), (MAX_POSITIONS, True)):
        with refused(INVALID, "TARGET_TOO_LONG", "target", count):
            score(caller, session, [300] * count, include_end)


def test_bad_targets_are_refused(caller: Caller, session: str) -> None:
    with refused(INVALID, "EMPTY_TARGET", "target", ""):
        score(caller, session, "")
    with refused(INVALID, "TOKEN_OUT_OF_RANGE", "target.tokens.ids[1]", 100_000):
        score(caller, session, [300, 100_000])
    with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
        score(caller, "nobody", [300])


def test_scoring_needs_room_in_the_budget(services: Services, servers: ServerThread) -> None:
    decoder = servers.start_decoder(services.model)
    caller = Caller(services.encoder, decoder)
    session, budget = caller.open(caller.memory(TEXT)), decoder.service.budget
    budget.total = budget.used + 10
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVER_BUDGET"):
        score(caller, session, [300] * 20)
    caller.close_session(session)
    assert budget.used == 0
    caller.close()
