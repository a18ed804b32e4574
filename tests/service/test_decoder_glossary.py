"""Glossaries over the wire: as in this process, refused by name where they cannot be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import ANY

import grpc
import pytest

from splitformer import statuses
from splitformer.generation import GenerationOptions
from splitformer.v1 import decoder_service_pb2 as dec, encoder_service_pb2 as enc
from tests.service.conftest import Opens
from tests.support.reference import Reference
from tests.support.rpc import TEXT, Caller, refused

INVALID = grpc.StatusCode.INVALID_ARGUMENT
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
ENTRIES = (("open", "öffnen"), ("file", "Größe"), ("tape", "Band"))
GLOSSARY = [dec.GlossaryEntry(source=source, target=target) for source, target in ENTRIES]


def entry(source: str, target: str) -> dec.GlossaryEntry:
    return dec.GlossaryEntry(source=source, target=target)


@pytest.mark.parametrize("options", [{}, {"num_beams": 6, "length_penalty": 0.5}], ids=str)
def test_over_the_wire_as_in_process(
    caller: Caller, opened: Opens, reference: Reference, options: dict[str, Any]
) -> None:
    fields = {**options, "num_return_sequences": 3, "max_new_tokens": 30}
    target = reference.target(TEXT, "de", glossary=ENTRIES, **fields)  # type: ignore[arg-type]
    assert target.search is not None
    expected = target.search.found(GenerationOptions(num_beams=4, num_return_sequences=3))
    generated = caller.generate(opened(), glossary=GLOSSARY, **fields)
    assert generated.ids == [token.id for token in target.produced]
    assert generated.text == target.text
    assert "ffnen" in generated.text
    assert "Größe" in generated.text
    assert [h.text for h in generated.hypotheses] == [h.text for h in expected]
    assert [h.score for h in generated.hypotheses] == pytest.approx([h.score for h in expected])


def test_by_every_way_to_a_session(caller: Caller, opened: Opens) -> None:
    first = opened()
    expected = caller.generate(first, glossary=GLOSSARY, max_new_tokens=30)
    reference = caller.reference()
    other = caller.open_reference(reference)
    fork = caller.decoder.ForkSession(dec.ForkSessionRequest(session_id=other)).session.session_id
    caller.release(reference)
    for session in (other, fork):
        generated = caller.generate(session, glossary=GLOSSARY, max_new_tokens=30)
        assert generated.tokens == expected.tokens
        caller.close_session(session)


def test_a_source_without_the_terms_is_decoded_as_without_them(
    caller: Caller, opened: Opens
) -> None:
    plain = caller.generate(opened(), max_new_tokens=12)
    generated = caller.generate(opened(), glossary=[entry("tape", "Band")], max_new_tokens=12)
    assert generated.tokens == plain.tokens
    assert not generated.hypotheses


def test_what_a_prefix_contains_counts(caller: Caller, opened: Opens) -> None:
    prefix = dec.TargetPrefix(text="Größe")
    session = opened(target_prefix=prefix)
    plain = opened(target_prefix=prefix)
    options = {"max_new_tokens": 1, "num_beams": 4}
    with_term = caller.generate(session, glossary=[entry("file", "Größe")], **options)
    assert len(with_term.tokens) == 1, "there is no room for the term, and no need"
    with refused(INVALID, "BAD_OPTION", "options.glossary", ANY):
        caller.generate(plain, glossary=[entry("file", "Menü")], **options)


# --- what cannot be -------------------------------------------------------------------------------


def fields_of(call: Callable[[], object]) -> list[str]:
    """Fields that a refused call names."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    trailers = {item.key: item.value for item in error.trailing_metadata()}
    details = trailers[statuses.DETAILS_KEY]
    refusal = statuses.error_of(error.code().value[0], error.details(), details)
    assert (error.code(), refusal.reason) == (INVALID, "BAD_OPTION")
    return [violation.field for violation in refusal.violations]


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"temperature": 0.7, "top_k": 5}, ["temperature", "top_k"]),
        ({"draft": dec.DRAFT_MODE_COPY, "stop": ["."]}, ["draft", "stop"]),
        ({"alternatives": 2, "alignments": True}, ["alternatives", "alignments"]),
        ({"mode": dec.DECODING_MODE_PARALLEL}, ["glossary"]),
        ({"num_return_sequences": 5}, ["num_return_sequences"]),
    ],
    ids=str,
)
def test_options_that_contradict_it_are_all_named(
    caller: Caller, opened: Opens, options: dict[str, Any], fields: list[str]
) -> None:
    session = opened()
    found = fields_of(lambda: caller.generate(session, glossary=GLOSSARY, **options))
    assert found == [f"options.{field}" for field in fields]
    assert caller.session(session).tokens == 0


def test_entries_that_cannot_be_are_all_named(caller: Caller, opened: Opens) -> None:
    session = opened()
    glossary = [entry("a", "b"), entry(" ", "x"), entry("file", ""), entry("a", "c")]
    found = fields_of(lambda: caller.generate(session, glossary=glossary))
    names = ["[1].source", "[2].target", "[3].source"]
    assert found == [f"options.glossary{name}" for name in names]
    found = fields_of(lambda: caller.generate(session, glossary=[entry("file", "\u2581")]))
    assert found == ["options.glossary[0].target"]
    many = [entry(f"term {number}", "x") for number in range(1001)]
    with refused(INVALID, "BAD_OPTION", "options.glossary", 1001):
        caller.generate(session, glossary=many)


def test_one_that_does_not_fit_into_the_length_is_refused(caller: Caller, opened: Opens) -> None:
    session = opened()
    with refused(INVALID, "BAD_OPTION", "options.glossary", ANY):
        caller.generate(session, glossary=GLOSSARY, max_new_tokens=5)
    assert caller.session(session).state == dec.SESSION_STATE_IDLE
    assert caller.generate(session, glossary=GLOSSARY).tokens


def test_a_memory_of_token_ids_has_no_terms(caller: Caller, opened: Opens) -> None:
    source = enc.Source(tokens=enc.TokenIds(ids=[5, 6, 1]))
    inline = caller.encoder.Encode(enc.EncodeRequest(source=source)).inline
    session = opened((inline.header, inline.tensor.data))
    with refused(PRECONDITION, "NO_SOURCE_TEXT"):
        caller.generate(session, glossary=GLOSSARY)
    assert caller.generate(session, max_new_tokens=2).tokens


def test_a_step_has_none(caller: Caller, opened: Opens) -> None:
    session = opened()
    with refused(INVALID, "BAD_OPTION", "options.glossary", ANY):
        caller.step(session, 0, glossary=GLOSSARY)
    found = fields_of(lambda: caller.step(session, 0, glossary=GLOSSARY, num_beams=3))
    assert found == ["options.num_beams", "options.glossary"]


def test_refusals_leave_nothing_behind(caller: Caller, opened: Opens) -> None:
    session = opened()
    with caller.nothing_left_behind():
        with refused(INVALID, "BAD_OPTION", "options.glossary", ANY):
            caller.generate(session, glossary=GLOSSARY, max_new_tokens=5)
        caller.generate(session, glossary=GLOSSARY, max_new_tokens=30)
