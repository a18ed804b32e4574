"""Options that rule tokens out, and stop strings: the same over the wire as in this process."""

from __future__ import annotations

import itertools
from typing import Any
from unittest.mock import ANY

import grpc
import pytest

from splitformer.v1 import decoder_service_pb2 as dec, encoder_service_pb2 as enc
from tests.service.conftest import Opens
from tests.support.reference import Reference
from tests.support.rpc import TEXT, Caller, refused


@pytest.mark.parametrize(
    "options",
    [
        {"repetition_penalty": 1.8},
        {"no_repeat_ngram_size": 1},
        {"suppressed_tokens": (300, 301, 302)},
        {"temperature": 1.2, "min_p": 0.05, "seed": 4},
        {"min_p": 0.01, "top_k": 30, "repetition_penalty": 1.2, "seed": 5},
    ],
    ids=str,
)
def test_over_the_wire_as_in_process(
    caller: Caller, opened: Opens, reference: Reference, options: dict[str, Any]
) -> None:
    expected = reference.target(TEXT, "de", max_new_tokens=20, **options)
    generated = caller.generate(opened(), max_new_tokens=20, **options)
    assert generated.ids == [token.id for token in expected.produced]
    assert generated.text == expected.text


def test_no_ngram_occurs_twice(caller: Caller, opened: Opens) -> None:
    session = opened()
    ids = caller.generate(session, max_new_tokens=40, no_repeat_ngram_size=2).ids
    pairs = list(itertools.pairwise(ids))
    assert len(set(pairs)) == len(pairs)


def test_suppressed_tokens_do_not_come(caller: Caller, opened: Opens) -> None:
    plain = caller.generate(opened(), max_new_tokens=10).ids
    session = opened()
    other = caller.generate(session, max_new_tokens=10, suppressed_tokens=plain[:2]).ids
    assert not set(plain[:2]) & set(other)


def test_bad_words_do_not_come(caller: Caller, opened: Opens) -> None:
    plain = caller.generate(opened(), max_new_tokens=20)
    one, several = plain.ids[3], plain.ids[5:8]
    assert several != [one] * 3
    words = [dec.BadWord(tokens=enc.TokenIds(ids=ids)) for ids in ([one], several)]
    for more in ({}, {"num_beams": 3}, {"draft": dec.DRAFT_MODE_COPY}, {"top_k": 9, "seed": 3}):
        ids = caller.generate(opened(), max_new_tokens=20, bad_words=words, **more).ids
        assert one not in ids
        assert several not in [ids[i : i + 3] for i in range(len(ids))]


def test_a_bad_word_is_ruled_out_as_text(caller: Caller, opened: Opens) -> None:
    plain = caller.generate(opened(), max_new_tokens=20)
    tokens = {token.id: token.text.strip() for token in plain.tokens}
    spelled = {token: text for token, text in tokens.items() if len(text) > 1 and text.isalpha()}
    assert spelled
    words = [dec.BadWord(text=text) for text in (*spelled.values(), "no such word")]
    for more in ({}, {"num_beams": 3}):
        found = caller.generate(opened(), max_new_tokens=20, bad_words=words, **more)
        assert not spelled.keys() & {*found.ids}


def test_bad_words_that_cannot_be_are_named(caller: Caller, opened: Opens) -> None:
    session, vocabulary = opened(), vocabulary_size(caller)
    bad = [dec.BadWord(tokens=enc.TokenIds(ids=[5, vocabulary])), dec.BadWord(text="fine")]
    field = "options.bad_words[0].tokens.ids[1]"
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_OPTION", field, vocabulary):
        caller.generate(session, bad_words=bad)
    for empty in (dec.BadWord(text=" "), dec.BadWord(), dec.BadWord(tokens=enc.TokenIds())):
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_OPTION", "options.bad_words[1]", ANY):
            caller.generate(session, bad_words=[bad[1], empty])
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_OPTION", "options.bad_words", 1001):
        caller.generate(session, bad_words=bad[1:] * 1001)
    term = dec.GlossaryEntry(source="file", target="Datei")
    options: dict[str, Any] = {"glossary": [term], "bad_words": [dec.BadWord(text="Datei")]}
    with refused(
        grpc.StatusCode.INVALID_ARGUMENT, "BAD_OPTION", "options.glossary[0].target", "Datei"
    ):
        caller.generate(session, max_new_tokens=20, **options)


def vocabulary_size(caller: Caller) -> int:
    return caller.decoder.GetModelInfo(
        dec.DecoderServiceGetModelInfoRequest()
    ).model.vocabulary_size


def stopping_text(caller: Caller, opened: Opens) -> tuple[str, str]:
    """Return what is generated without stopping, and a string in its middle across tokens."""
    whole = caller.generate(opened(), max_new_tokens=30)
    assert len(whole.text) > 12
    return whole.text, whole.text[6:11]


def test_a_stop_string_ends_the_generation_and_is_cut(caller: Caller, opened: Opens) -> None:
    text, stop = stopping_text(caller, opened)
    session = opened()
    generated = caller.generate(session, max_new_tokens=30, stop=[stop, "never said"])
    assert generated.end.reason == dec.END_REASON_STOP
    assert generated.text == text[: text.index(stop)]
    assert [token.index for token in generated.tokens] == list(range(len(generated.tokens)))
    assert stop in caller.session(session).text
    again = caller.generate(session, 0, max_new_tokens=30, stop=[stop])
    assert again.text == generated.text
    assert again.ids == generated.ids
    assert again.end.reason == dec.END_REASON_STOP


def test_steps_stop_as_well(caller: Caller, opened: Opens) -> None:
    text, stop = stopping_text(caller, opened)
    session, index = opened(), 0
    while (answer := caller.step(session, index, stop=[stop])).HasField("token"):
        assert caller.step(session, index, stop=[stop]).token == answer.token
        index += 1
    assert answer.end.reason == dec.END_REASON_STOP
    assert stop in caller.session(session).text
    assert text.startswith(caller.session(session).text)


def test_a_record_is_cut_as_the_stream_was(caller: Caller, opened: Opens) -> None:
    _, stop = stopping_text(caller, opened)
    session = opened()
    first = caller.generate(session, max_new_tokens=30, stop=[stop], close_on_end=True)
    again = caller.generate(session, 0, max_new_tokens=30, stop=[stop])
    assert (again.text, again.ids) == (first.text, first.ids)
    assert again.end.reason == dec.END_REASON_STOP


def test_ids_outside_the_vocabulary_are_refused(caller: Caller, opened: Opens) -> None:
    session = opened()
    field = "options.suppressed_tokens[1]"
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_OPTION", field, 100000):
        caller.generate(session, suppressed_tokens=[5, 100000])
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_OPTION", "options.stop", ("a", "")):
        caller.generate(session, stop=["a", ""])


def test_an_option_of_a_later_protocol_is_refused(caller: Caller, opened: Opens) -> None:
    known = dec.GenerationOptions(top_k=3)
    later = dec.GenerationOptions.FromString(known.SerializeToString() + bytes((0xF8, 0x3F, 1)))
    request = dec.GenerateRequest(session_id=opened(), options=later)
    unimplemented = grpc.StatusCode.UNIMPLEMENTED
    with refused(unimplemented, "OPTION_NOT_OFFERED", "options", ANY) as refusal:
        list(caller.decoder.Generate(request))
    assert "got number 1023" in refusal.error.message
