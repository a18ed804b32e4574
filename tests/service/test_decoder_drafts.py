"""Guessing and parallel decoding over the wire: the same answers, counted, and clear refusals."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import grpc
import pytest

from decoder_service.generation import Generation
from decoder_service.service import DecoderService
from splitformer.generation import Drafting, Produced, RowCosts
from splitformer.generation.copying import Copier
from splitformer.generation.drafting import NOWHERE, Look
from splitformer.v1 import decoder_service_pb2 as dec
from tests.conftest import Services
from tests.support.native import needs_native
from tests.support.reference import Reference
from tests.support.rpc import TEXT, Caller, refused

INVALID = grpc.StatusCode.INVALID_ARGUMENT
DRAFTS = [dec.DRAFT_MODE_OFF, dec.DRAFT_MODE_COPY, dec.DRAFT_MODE_JACOBI, None]


@pytest.fixture
def decoder(services: Services) -> Iterator[DecoderService]:
    """The decoder service, eager to guess."""
    service = services.decoder.service
    measured = service.runs._drafting
    assert measured.lossless
    assert measured.costs.step(2) > measured.costs.step(1) > 0, "it was measured at start"
    service.runs._drafting = Drafting(
        RowCosts((1.0, 1.0)),
        True,
        measured.token_kinds,
        measured.unusable,
    )
    yield service
    service.runs._drafting = measured


def counted(service: DecoderService) -> dict[str, float]:
    return {
        f"{name} {mode}": counter.labels(mode).value
        for name, counter in (
            ("drafted", service.metrics.drafted),
            ("accepted", service.metrics.accepted),
        )
        for mode in ("copy", "jacobi")
    }


@needs_native
@pytest.mark.parametrize("options", [{}, {"min_new_tokens": 24}, {"stop": ["a"]}], ids=str)
def test_guessing_changes_nothing_but_the_steps(
    caller: Caller, decoder: DecoderService, reference: Reference, options: dict[str, Any]
) -> None:
    answers = []
    for draft, most in itertools.product(DRAFTS, (0, 3)):
        session, before = caller.open(caller.memory()), counted(decoder)
        generated = caller.generate(
            session, max_new_tokens=30, draft=draft, per_message=most, **options
        )
        end, after = generated.end, counted(decoder)
        spent = sum(after.values()) - sum(before.values())
        assert spent == end.drafted_tokens + end.accepted_tokens
        assert end.steps >= len(generated.tokens) - end.accepted_tokens
        if draft == dec.DRAFT_MODE_OFF:
            assert not spent
        elif draft is not None and not options:
            assert end.drafted_tokens
        answers.append((generated.tokens, end.reason, end.log_probability, end.text))
        caller.close_session(session)
    assert all(answer == answers[0] for answer in answers)
    if "stop" not in options:
        expected = reference.target(TEXT, "de", max_new_tokens=30, **options)
        assert [token.id for token in answers[0][0]] == [token.id for token in expected.produced]


class Oracle(Copier):
    """Knows what comes."""

    truth: ClassVar[list[int]] = []

    def guess(
        self, produced: Sequence[Produced], prices: Sequence[float], look: Look = NOWHERE
    ) -> list[int]:
        return self.truth[len(produced) : len(produced) + 4]


@needs_native
@pytest.mark.parametrize(("most", "sizes"), [(64, [5, 5, 5, 1]), (2, [2, 2, 1] * 3 + [1])])
def test_a_message_has_the_tokens_of_a_step_and_waits_for_no_others(
    caller: Caller,
    decoder: DecoderService,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    sizes: list[int],
) -> None:
    session, again = (caller.open(caller.memory()) for _ in range(2))
    plain = caller.generate(session, max_new_tokens=16, draft=dec.DRAFT_MODE_OFF)
    monkeypatch.setattr(Oracle, "truth", plain.ids)
    monkeypatch.setattr("splitformer.generation.ways.Copier", Oracle)
    may_step, step = threading.Semaphore(1), decoder.engine.step

    def gated(batch: list[Generation]) -> list[Generation]:
        assert may_step.acquire(timeout=20), "the tokens of the last step were held back"
        return step(batch)

    monkeypatch.setattr(decoder.engine, "step", gated)
    heard, seen = list[int](), list[dec.Token]()
    options: dict[str, Any] = {"max_new_tokens": 16, "draft": dec.DRAFT_MODE_COPY}
    for part in caller.start(again, per_message=most, **options):
        heard.append(len(part.tokens.tokens))
        seen += part.tokens.tokens
        if len(seen) % 5 == 0:
            may_step.release()
    assert heard == [*sizes, 0], "the last is the end"
    assert seen == plain.tokens
    for each in (session, again):
        caller.close_session(each)


@needs_native
def test_a_guessing_session_is_resumed_and_stepped(caller: Caller, decoder: DecoderService) -> None:
    whole = caller.open(caller.memory())
    expected = caller.generate(whole, max_new_tokens=24, draft=1).tokens
    assert len(expected) == 24
    session = caller.open(caller.memory())
    options = {"draft": dec.DRAFT_MODE_COPY}
    first = caller.generate(session, max_new_tokens=7, **options).tokens
    again = caller.generate(session, max_new_tokens=9, start_index=4, **options).tokens
    step = caller.step(session, 13, **options)
    rest = caller.generate(session, max_new_tokens=10, **options).tokens
    assert [*first[:4], *again, step.token, *rest] == expected
    for each in (whole, session):
        caller.close_session(each)


@needs_native
@pytest.mark.parametrize(
    "options",
    [
        {"draft": dec.DRAFT_MODE_COPY},
        {"draft": dec.DRAFT_MODE_JACOBI},
        {"mode": dec.DECODING_MODE_PARALLEL},
    ],
    ids=str,
)
def test_steps_and_steered_loops_take_guesses(
    caller: Caller, decoder: DecoderService, options: dict[str, Any]
) -> None:
    whole, stepped, steered = (caller.open(caller.memory()) for _ in range(3))
    expected = caller.generate(whole, max_new_tokens=12, draft=dec.DRAFT_MODE_OFF)
    steps = [caller.step(stepped, index, **options).token for index in range(12)]
    chosen = dec.GenerationOptions(max_new_tokens=12, **options)
    start = dec.GenerateRequest(session_id=steered, options=chosen)
    requests = [
        dec.InteractRequest(start=start, hold=True),
        dec.InteractRequest(rewind=dec.Rewind(index=0), hold=True),
        dec.InteractRequest(force=dec.Force(token=expected.ids[0], index=0)),
    ]
    parts = [*caller.decoder.Interact(iter(requests))]
    said = [token for part in parts for token in part.tokens.tokens]
    assert [token.id for token in steps] == expected.ids
    assert [token.id for token in said] == expected.ids
    for each in (whole, stepped, steered):
        caller.close_session(each)


def test_parallel_decoding_streams_what_the_loop_gives(
    caller: Caller, decoder: DecoderService
) -> None:
    session = caller.open(caller.memory())
    loop = caller.generate(session, max_new_tokens=20, draft=dec.DRAFT_MODE_OFF)
    again = caller.open(caller.memory())
    parallel = caller.generate(again, max_new_tokens=20, mode=dec.DECODING_MODE_PARALLEL)
    assert [token.id for token in parallel.tokens] == [token.id for token in loop.tokens]
    assert (parallel.text, parallel.end.reason) == (loop.text, loop.end.reason)
    assert parallel.end.steps <= loop.end.steps
    limited = caller.open(caller.memory())
    brief = caller.generate(
        limited, max_new_tokens=10, mode=dec.DECODING_MODE_PARALLEL, max_passes=1
    )
    assert brief.end.steps == 1
    for each in (session, again, limited):
        caller.close_session(each)


@pytest.mark.parametrize(
    ("field", "value", "options"),
    [
        ("options.draft", 99, {"draft": 99}),
        ("options.mode", 7, {"mode": 7}),
        ("options.max_passes", 0, {"mode": 2, "max_passes": 0}),
        ("options.max_passes", 3, {"max_passes": 3}),
        ("options.draft", "copy", {"mode": 2, "draft": 2}),
        ("options.temperature", 0.5, {"mode": 2, "temperature": 0.5}),
        ("options.top_k", 5, {"mode": 2, "top_k": 5}),
        ("options.no_repeat_ngram_size", 2, {"mode": 2, "no_repeat_ngram_size": 2}),
        ("options.suppressed_tokens", (9,), {"mode": 2, "suppressed_tokens": [9]}),
    ],
)
def test_contradictions_are_refused(
    caller: Caller, field: str, value: object, options: dict[str, int]
) -> None:
    session = caller.open(caller.memory())
    with refused(INVALID, "BAD_OPTION", field, value):
        caller.generate(session, **options)
    caller.close_session(session)


def test_every_contradiction_is_named(caller: Caller) -> None:
    session = caller.open(caller.memory())
    with pytest.raises(grpc.RpcError) as caught:
        caller.generate(session, mode=2, draft=3, top_p=0.5, repetition_penalty=1.5)
    for name in ("draft", "top_p", "repetition_penalty"):
        assert f"options.{name}: must be unset" in str(caught.value)
    caller.close_session(session)
