"""Options that cannot be, alone or together: refused, with every field that breaks a rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from splitformer import statuses
from splitformer.v1 import decoder_service_pb2 as dec
from tests.support.rpc import Caller

CASES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "beams that draw": (
        {"num_beams": 3, "temperature": 0.7, "top_k": 5, "top_p": 0.9, "min_p": 0.1},
        {"temperature", "top_k", "top_p", "min_p"},
    ),
    "top-p of nothing": ({"top_p": 0.0}, {"top_p"}),
    "an empty stop string": ({"stop": ["end", ""]}, {"stop"}),
    "ids outside the vocabulary": (
        {"suppressed_tokens": [5, 100_000, -1]},
        {"suppressed_tokens[1]", "suppressed_tokens[2]"},
    ),
    "more hypotheses than beams": (
        {"num_beams": 2, "num_return_sequences": 3},
        {"num_return_sequences"},
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
        },
        {"draft", "temperature", "repetition_penalty", "no_repeat_ngram_size"},
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
    with pytest.raises(grpc.RpcError) as caught:
        caller.generate(session, **options)
    error: Any = caught.value
    trailers = {item.key: item.value for item in error.trailing_metadata()}
    details = trailers[statuses.DETAILS_KEY]
    refusal = statuses.error_of(error.code().value[0], error.details(), details)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.reason == "BAD_OPTION"
    assert {violation.field for violation in refusal.violations} == {
        f"options.{field}" for field in fields
    }
    assert caller.session(session).tokens == 0
    assert caller.generate(session, max_new_tokens=2).tokens
