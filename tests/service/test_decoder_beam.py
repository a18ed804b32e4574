"""Beam search over the wire: as in this process, in any company, whatever interrupts it."""

from __future__ import annotations

import threading
from typing import Any

import grpc
import pytest

from splitformer.generation import GenerationOptions
from splitformer.v1 import decoder_service_pb2 as dec
from tests.service.conftest import Opens
from tests.support.reference import Reference
from tests.support.rpc import TEXT, Caller, Generated, eventually, refused

BEAM: dict[str, Any] = {"num_beams": 4, "num_return_sequences": 3, "max_new_tokens": 20}


def plain(generated: Generated) -> tuple[Any, ...]:
    """What must be the same however a search was run."""
    end = generated.end
    return generated.tokens, generated.hypotheses, end.reason, end.log_probability, end.text


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"length_penalty": 0.0, "min_new_tokens": 4},
        {"no_repeat_ngram_size": 2, "repetition_penalty": 1.3},
        {"suppressed_tokens": (300, 301, 302)},
    ],
    ids=str,
)
def test_over_the_wire_as_in_process(
    caller: Caller, opened: Opens, reference: Reference, options: dict[str, Any]
) -> None:
    target = reference.target(TEXT, "de", **BEAM, **options)
    assert target.search is not None
    expected = target.search.found(GenerationOptions(num_beams=4, num_return_sequences=3))
    generated = caller.generate(opened(), **BEAM, **options)
    assert generated.ids == [token.id for token in target.produced]
    assert generated.text == target.text
    assert [h.text for h in generated.hypotheses] == [h.text for h in expected]
    assert [h.score for h in generated.hypotheses] == pytest.approx([h.score for h in expected])
    assert [[t.id for t in h.tokens] for h in generated.hypotheses] == [
        [t.id for t in h.tokens] for h in expected
    ]


def test_the_best_hypothesis_is_what_is_streamed(caller: Caller, opened: Opens) -> None:
    session = opened()
    generated = caller.generate(session, **BEAM)
    best = generated.hypotheses[0]
    assert list(best.tokens) == generated.tokens
    assert best.text == generated.text == caller.session(session).text
    assert best.reason == generated.end.reason
    scores = [hypothesis.score for hypothesis in generated.hypotheses]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    count = len(best.tokens) + (best.reason == dec.END_REASON_EOS)
    total = sum(token.log_probability for token in best.tokens) + generated.end.log_probability
    assert best.score == pytest.approx(total / count, rel=1e-4)


def test_in_any_company_as_alone(caller: Caller, opened: Opens) -> None:
    modes: list[dict[str, Any]] = [
        BEAM,
        {"max_new_tokens": 20},
        {**BEAM, "num_beams": 3, "length_penalty": 0.5},
        {"temperature": 1.0, "top_k": 20, "seed": 3, "max_new_tokens": 20},
    ]
    alone = [plain(caller.generate(opened(), **mode)) for mode in modes]
    found: dict[int, Any] = {}

    def run(i: int, session: str) -> None:
        found[i] = plain(caller.generate(session, **modes[i % len(modes)]))

    threads = [threading.Thread(target=run, args=(i, opened())) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(8)] == alone * 2


@pytest.mark.parametrize("read", [0, 1, 3])
def test_resumed_as_uninterrupted(caller: Caller, opened: Opens, read: int) -> None:
    options: dict[str, Any] = {"num_beams": 4, "num_return_sequences": 4, "length_penalty": 1.3}
    whole = caller.generate(opened(), **options)
    session = opened()
    call = caller.start(session, **options)
    come = [next(call).tokens.tokens[0] for _ in range(read)]
    call.cancel()
    eventually(lambda: caller.session(session).state != dec.SESSION_STATE_RUNNING)
    assert come == whole.tokens[:read]
    rest = caller.generate(session, read, **options)
    assert (rest.tokens, rest.hypotheses) == (whole.tokens[read:], whole.hypotheses)
    again = caller.generate(session, 0, **options)
    assert plain(again) == plain(whole)


def test_repeated_from_the_record(caller: Caller, opened: Opens) -> None:
    session = opened()
    first = caller.generate(session, close_on_end=True, **BEAM)
    assert caller.session(session).state == dec.SESSION_STATE_CLOSED
    assert plain(caller.generate(session, 0, **BEAM)) == plain(first)
    fewer = caller.generate(session, 2, **(BEAM | {"num_return_sequences": 1}))
    assert fewer.tokens == first.tokens[2:]
    assert fewer.hypotheses == first.hypotheses[:1]


def test_goes_on_after_another_way_of_decoding(caller: Caller, opened: Opens) -> None:
    session = opened()
    greedy = caller.generate(session, max_new_tokens=3).tokens
    found = caller.generate(session, num_beams=3, max_new_tokens=4)
    assert found.hypotheses[0].tokens[0].index == 3
    whole = caller.generate(session, 0, max_new_tokens=9)
    assert whole.tokens[:3] == greedy
    assert whole.tokens[3 : 3 + len(found.tokens)] == found.tokens


def test_a_stop_string_completes_a_hypothesis(caller: Caller, opened: Opens) -> None:
    options = BEAM | {"num_return_sequences": 4}
    session, stop = opened(), caller.generate(opened(), **BEAM).text[4]
    generated = caller.generate(session, **options, stop=[stop, "never said"])
    assert all(stop not in hypothesis.text for hypothesis in generated.hypotheses)
    stopped = [h for h in generated.hypotheses if h.reason == dec.END_REASON_STOP]
    assert stopped
    for hypothesis in stopped:
        assert hypothesis.text == "".join(token.text for token in hypothesis.tokens)
        total = sum(token.log_probability for token in hypothesis.tokens)
        assert hypothesis.score == pytest.approx(total / len(hypothesis.tokens), rel=1e-4)
    assert generated.text == generated.hypotheses[0].text
    assert plain(caller.generate(session, 0, **options, stop=[stop, "never said"])) == plain(
        generated
    )


def test_contradictions_are_named_all_at_once(caller: Caller, opened: Opens) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        caller.generate(opened(), num_beams=3, num_return_sequences=4, temperature=0.5, top_p=0.9)
    details = str(caught.value.details())
    for field in ("temperature", "top_p", "num_return_sequences"):
        assert f"options.{field}" in details
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_OPTION", "options.length_penalty", 2.0):
        caller.generate(opened(), length_penalty=2.0)


def test_no_steps_with_beams(caller: Caller, opened: Opens) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_OPTION", "options.num_beams", 2):
        caller.step(opened(), 0, num_beams=2)


def test_beams_need_room(caller: Caller, opened: Opens) -> None:
    session = opened()
    service = caller._running[1].service  # type: ignore[union-attr]
    own = service.sessions.get(session).own_bytes
    free = service.budget.total - service.budget.used
    with caller.nothing_left_behind():
        service.budget.reserve(free - 3 * own, "a test")
        try:
            with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVER_BUDGET") as refusal:
                caller.generate(session, num_beams=4)
            assert "options.num_beams" in refusal.error.message
            assert caller.session(session).state == dec.SESSION_STATE_IDLE
            assert caller.generate(session, num_beams=3, max_new_tokens=5).hypotheses
        finally:
            service.budget.release(free - 3 * own)
