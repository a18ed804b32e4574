"""Options that cannot be, alone or together: refused, with every field that breaks a rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from splitformer import statuses
from splitformer.errors import SplitformerError
from splitformer.v1 import decoder_service_pb2 as dec, encoder_service_pb2 as enc, model_pb2
from tests.support.rpc import Caller

CASES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "beams that draw": (
        {"num_beams": 3, "temperature": 0.7, "top_k": 5, "top_p": 0.9, "min_p": 0.1},
        {"temperature", "top_k", "top_p", "min_p"},
    ),
    "beams with a bias of one token": ({"num_beams": 3, "logit_bias": {5: 1.0}}, {"logit_bias"}),
    "a bias of what is no token": (
        {"logit_bias": {-1: 1.0, 5: 1.0, 100_000: 1.0}},
        {"logit_bias[-1]", "logit_bias[100000]"},
    ),
    "top-p of nothing": ({"top_p": 0.0}, {"top_p"}),
    "what ends a search that is none": (
        {"length_penalty": 2.0, "early_stopping": False},
        {"length_penalty", "early_stopping"},
    ),
    "more stop strings than can be looked for": ({"stop": ["end"] * 257}, {"stop"}),
    "an empty stop string": ({"stop": ["end", ""]}, {"stop"}),
    "ids outside the vocabulary": (
        {"suppressed_tokens": [5, 100_000, -1]},
        {"suppressed_tokens[1]", "suppressed_tokens[2]"},
    ),
    "more hypotheses than beams": (
        {"num_beams": 2, "num_return_sequences": 3},
        {"num_return_sequences"},
    ),
    "more beams than a step should have": ({"num_beams": 257}, {"num_beams"}),
    "terms and words too long to look for": (
        {
            "glossary": [dec.GlossaryEntry(source="a" * 1001, target="b" * 1001)],
            "bad_words": [dec.BadWord(text="b" * 1001), dec.BadWord(text="b" * 1000)],
        },
        {"glossary[0].source", "glossary[0].target", "bad_words[0]"},
    ),
    "all of it at once": (
        {"num_beams": 2, "num_return_sequences": 3, "top_p": 0.0, "stop": [""], "top_k": 0},
        {"num_return_sequences", "top_p", "stop", "top_k"},
    ),
    "a parallel pass that draws, filters and guesses": (
        {
            "mode": dec.DECODING_MODE_PARALLEL,
            "draft": dec.DRAFT_MODE_COPY,
            "temperature": 1.0,
            "repetition_penalty": 1.1,
            "no_repeat_ngram_size": 2,
            "bad_words": [dec.BadWord(text="file")],
        },
        {"draft", "temperature", "repetition_penalty", "no_repeat_ngram_size", "bad_words"},
    ),
    "a glossary beside what beams cannot do": (
        {
            "glossary": [dec.GlossaryEntry(source="file", target="Datei")],
            "temperature": 0.5,
            "alternatives": 2,
            "alignments": True,
            "stop": ["end"],
        },
        {"temperature", "alternatives", "alignments", "stop"},
    ),
}


@pytest.fixture
def session(caller: Caller) -> Iterator[str]:
    session = caller.open(caller.memory())
    yield session
    caller.close_session(session)


@pytest.mark.parametrize("case", CASES)
def test_every_field_is_named_and_the_session_stays(
    caller: Caller, session: str, case: str
) -> None:
    options, fields = CASES[case]
    refusal = refusal_of(lambda: caller.generate(session, **options))
    assert refusal.reason == "BAD_OPTION"
    assert fields_of(refusal) == {f"options.{field}" for field in fields}
    assert caller.session(session).tokens == 0
    assert caller.generate(session, max_new_tokens=2).tokens


def test_what_a_single_step_cannot_do_is_named_beside_ids(caller: Caller, session: str) -> None:
    wrong = {"num_beams": 3, "suppressed_tokens": [-1, 5, 100_000]}
    refusal = refusal_of(lambda: caller.step(session, 0, -7, **wrong))
    assert fields_of(refusal) == {
        *("options.num_beams", "options.suppressed_tokens[0]", "options.suppressed_tokens[2]"),
        "forced_token",
    }


def test_more_ids_than_there_are_need_not_be_gone_through(caller: Caller, session: str) -> None:
    refusal = refusal_of(lambda: caller.generate(session, suppressed_tokens=[5] * 50_000))
    assert fields_of(refusal) == {"options.suppressed_tokens"}
    assert refusal.message.endswith("got 50000")


MANY: dict[str, tuple[dict[str, Any], int]] = {
    "ids": ({"suppressed_tokens": [-1] * 300}, 300),
    "entries": ({"glossary": [dec.GlossaryEntry(source=" ", target="\t")] * 1000}, 2999),
}


@pytest.mark.parametrize("case", MANY)
def test_of_very_many_violations_as_many_are_told_as_a_status_holds(
    caller: Caller, session: str, case: str
) -> None:
    options, count = MANY[case]
    refusal = refusal_of(lambda: caller.generate(session, **options))
    assert refusal.reason == "BAD_OPTION"
    assert len(refusal.violations) > 10
    assert refusal.message.endswith(f"; and {count - len(refusal.violations)} more")
    assert all(violation.field in refusal.message for violation in refusal.violations)


def test_what_surrounds_options_is_named_beside_them(caller: Caller, session: str) -> None:
    wrong: dict[str, Any] = {"top_k": 0, "draft": 99, "mode": 77}
    fields = {"options.top_k", "options.draft", "options.mode"}
    refusal = refusal_of(lambda: caller.generate(session, per_message=-1, **wrong))
    assert fields_of(refusal) == {*fields, "max_tokens_per_message"}
    refusal = refusal_of(lambda: caller.step(session, None, **wrong))
    assert fields_of(refusal) == {*fields, "index"}
    header = dec.DecodeHeader(
        session=dec.SessionHeader(request_id="again"),
        options=dec.GenerationOptions(**wrong),
        max_tokens_per_message=-1,
    )
    requests = [dec.DecodeRequest(header=header)]
    refusal = refusal_of(lambda: list(caller.decoder.Decode(iter(requests), timeout=30)))
    assert fields_of(refusal) == {
        *(*fields, "max_tokens_per_message", "header.session.request_id"),
    }


def test_everything_is_named_that_is_wrong_with_a_header(caller: Caller) -> None:
    wrong: dict[str, Any] = {
        "language": "tlh",
        "max_positions": -1,
        "target_prefix": dec.TargetPrefix(tokens=enc.TokenIds(ids=[-1, 5, 100_000])),
        "speech": dec.SpeechOptions(task=model_pb2.SPEECH_TASK_TRANSCRIBE),
    }
    refusal = refusal_of(lambda: caller.open(caller.memory(), **wrong))
    assert refusal.reason == "UNKNOWN_LANGUAGE"
    ids = "target_prefix.tokens.ids"
    fields = {"target_language", "max_positions", "speech", f"{ids}[0]", f"{ids}[2]"}
    assert fields_of(refusal) == fields


def refusal_of(call: Callable[[], object]) -> SplitformerError:
    """What a call is refused with, which must be INVALID_ARGUMENT with its details."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error.details()
    trailers = {item.key: item.value for item in error.trailing_metadata()}
    details = trailers[statuses.DETAILS_KEY]
    return statuses.error_of(error.code().value[0], error.details(), details)


def fields_of(refusal: SplitformerError) -> set[str]:
    return {violation.field for violation in refusal.violations}
