"""What the decoder service refuses, with which status, reason and violation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import grpc
import pytest

from splitformer.v1 import decoder_service_pb2 as dec, encoder_service_pb2 as enc
from tests.conftest import Services
from tests.support.checkpoints import MAX_POSITIONS, make_checkpoint
from tests.support.rpc import Caller, eventually, refused
from tests.support.servers import ServerThread

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
VOCABULARY = 376

OFFERED_OPTIONS = {
    *("max_new_tokens", "min_new_tokens", "temperature", "top_k", "top_p", "min_p", "seed"),
    *("repetition_penalty", "no_repeat_ngram_size", "stop", "suppressed_tokens", "bad_words"),
    "logit_bias",
    *("num_beams", "num_return_sequences", "length_penalty", "early_stopping", "glossary"),
    *("alternatives", "attention", "alignments", "draft", "mode", "max_passes"),
}

BAD_OPTIONS: list[tuple[str, Any]] = [
    ("max_new_tokens", 0),
    ("max_new_tokens", -1),
    ("min_new_tokens", -1),
    ("temperature", -1.0),
    ("temperature", float("nan")),
    ("temperature", float("inf")),
    ("top_k", 0),
    ("top_p", 0.0),
    ("top_p", 1.5),
    ("top_p", float("nan")),
    ("min_p", -0.5),
    ("min_p", 1.5),
    ("repetition_penalty", 0.0),
    ("repetition_penalty", float("inf")),
    ("no_repeat_ngram_size", -1),
    ("alternatives", -1),
    ("alternatives", 101),
    ("num_beams", 0),
    ("num_beams", -3),
    ("num_return_sequences", 0),
    ("num_return_sequences", 2),
    ("length_penalty", 1.0),
]


@pytest.fixture
def session(caller: Caller) -> Iterator[str]:
    """An open session."""
    session = caller.open(caller.memory())
    yield session
    caller.close_session(session)


@pytest.mark.parametrize("language", ["", "xx", "DE", "語" * 5000])
def test_an_unknown_language_is_refused(caller: Caller, language: str) -> None:
    seen = language if len(language) < 80 else ANY
    with refused(INVALID, "UNKNOWN_LANGUAGE", "target_language", seen) as refusal:
        caller.open(caller.memory(), language)
    assert refusal.error.metadata["known"] == "ja,de,fr,es,zh_CN"
    assert len(refusal.error.message) < 300


def test_an_unknown_model_is_not_found(caller: Caller) -> None:
    with refused(NOT_FOUND, "MODEL_NOT_FOUND"):
        caller.open(caller.memory(), model="nope")
    with refused(NOT_FOUND, "MODEL_NOT_FOUND"):
        caller.decoder.GetModelInfo(dec.DecoderServiceGetModelInfoRequest(model="nope"))


@pytest.mark.parametrize("token", [-1, VOCABULARY])
def test_a_prefix_id_out_of_range_is_refused(caller: Caller, token: int) -> None:
    prefix = dec.TargetPrefix(tokens=enc.TokenIds(ids=[9, token]))
    with refused(INVALID, "TOKEN_OUT_OF_RANGE", "target_prefix.tokens.ids[1]", token):
        caller.open(caller.memory(), target_prefix=prefix)


def test_ids_that_pad_the_vocabulary_have_no_text(servers: ServerThread, tmp_path: Path) -> None:
    sizes = {"source_vocabulary_size": 400, "target_vocabulary_size": 400}
    model = make_checkpoint(tmp_path / "padded", **sizes)
    encoder = servers.start_encoder(model)
    caller = Caller(encoder, servers.start_decoder(model, encoder))
    prefix = dec.TargetPrefix(tokens=enc.TokenIds(ids=[399]))
    session = caller.open(caller.memory(), target_prefix=prefix)
    generated = caller.generate(session, temperature=10.0, seed=1, min_new_tokens=40)
    padding = [token for token in generated.tokens if token.id >= VOCABULARY]
    assert padding
    assert not any(token.text.strip("\N{REPLACEMENT CHARACTER}") for token in padding)
    caller.close_session(session)
    caller.close()


def test_a_prefix_must_leave_room(caller: Caller) -> None:
    prefix = dec.TargetPrefix(tokens=enc.TokenIds(ids=[9] * MAX_POSITIONS))
    with refused(INVALID, "TARGET_TOO_LONG", "target_prefix", MAX_POSITIONS) as refusal:
        caller.open(caller.memory(), target_prefix=prefix)
    assert refusal.error.metadata["limit"] == str(MAX_POSITIONS)
    with refused(INVALID, "TARGET_TOO_LONG", "target_prefix", 8_000_000):
        huge = dec.TargetPrefix(text="fox jump" * 1_000_000)
        caller.open(caller.memory(), target_prefix=huge)
    prefix = dec.TargetPrefix(tokens=enc.TokenIds(ids=[9] * 4))
    with refused(INVALID, "TARGET_TOO_LONG", "target_prefix", 4):
        caller.open(caller.memory(), target_prefix=prefix, max_positions=4)


@pytest.mark.parametrize("positions", [-1, MAX_POSITIONS + 1])
def test_max_positions_beyond_the_model_are_refused(caller: Caller, positions: int) -> None:
    with refused(INVALID, "TARGET_TOO_LONG", "max_positions", positions):
        caller.open(caller.memory(), max_positions=positions)


@pytest.mark.parametrize("session_id", ["", "0" * 32, "x" * 50_000, "é"])
def test_an_unknown_session_is_not_found(caller: Caller, session_id: str) -> None:
    with refused(NOT_FOUND, "SESSION_NOT_FOUND") as refusal:
        caller.generate(session_id)
    assert len(refusal.error.message) < 300
    with refused(NOT_FOUND, "SESSION_NOT_FOUND"):
        caller.generate(session_id, 0)
    with refused(NOT_FOUND, "SESSION_NOT_FOUND"):
        caller.step(session_id, 0)
    with refused(NOT_FOUND, "SESSION_NOT_FOUND"):
        caller.session(session_id)
    with refused(NOT_FOUND, "SESSION_NOT_FOUND"):
        caller.close_session(session_id)


def test_every_option_of_the_protocol_is_offered() -> None:
    names = {field.name for field in dec.GenerationOptions.DESCRIPTOR.fields}
    assert names == OFFERED_OPTIONS


def test_harmless_modes_are_taken(caller: Caller, session: str) -> None:
    modes = {"draft": dec.DRAFT_MODE_OFF, "mode": dec.DECODING_MODE_LOOP}
    assert len(caller.generate(session, max_new_tokens=3, **modes).tokens) == 3


@pytest.mark.parametrize(("name", "value"), BAD_OPTIONS)
def test_a_bad_option_is_refused(caller: Caller, session: str, name: str, value: Any) -> None:
    with refused(INVALID, "BAD_OPTION", f"options.{name}", value):
        caller.generate(session, **{name: value})
    with refused(INVALID, "BAD_OPTION", f"options.{name}", value):
        caller.step(session, 0, **{name: value})
    assert caller.session(session).tokens == 0


def test_options_that_contradict_each_other_are_refused(caller: Caller, session: str) -> None:
    with refused(INVALID, "BAD_OPTION", "options.min_new_tokens", 3):
        caller.generate(session, min_new_tokens=3, max_new_tokens=2)


def test_bad_indices_are_refused(caller: Caller, session: str) -> None:
    with refused(INVALID, "BAD_START_INDEX", "start_index", -1):
        caller.generate(session, -1)
    with refused(PRECONDITION, "START_INDEX_AHEAD"):
        caller.generate(session, 1)
    with refused(INVALID, "BAD_STEP_INDEX", "index", None):
        caller.step(session, None)
    with refused(INVALID, "BAD_STEP_INDEX", "index", -1):
        caller.step(session, -1)
    with refused(PRECONDITION, "STEP_INDEX_AHEAD"):
        caller.step(session, 1)
    with refused(INVALID, "BAD_OPTION", "max_tokens_per_message", -1):
        caller.generate(session, per_message=-1)


def test_an_expired_session_is_not_found_and_frees_its_bytes(
    servers: ServerThread, services: Services
) -> None:
    decoder = servers.start_decoder(services.model, idle_seconds=0.2)
    caller = Caller(services.encoder, decoder)
    memory = caller.memory()
    session = caller.open(memory)
    tokens = caller.generate(session, max_new_tokens=3).tokens
    eventually(lambda: decoder.service.budget.used == 0)
    for start in (None, 0, 3):
        with refused(NOT_FOUND, "SESSION_NOT_FOUND"):
            caller.generate(session, start)
    with refused(NOT_FOUND, "SESSION_NOT_FOUND"):
        caller.close_session(session)
    assert caller.session(session).state == dec.SESSION_STATE_CLOSED
    assert caller.step(session, 2).token == tokens[2], "from the record"
    with refused(NOT_FOUND, "SESSION_NOT_FOUND"):
        caller.step(session, 3)
    assert decoder.metric("splitformer_decoder_sessions_closed_total", how="expired") == 1
    again = caller.generate(caller.open(memory), max_new_tokens=3)
    assert again.ids == [token.id for token in tokens]
    caller.close()


def test_a_session_that_expired_a_moment_ago_is_gone_before_the_sweep(
    servers: ServerThread, services: Services
) -> None:
    decoder = servers.start_decoder(services.model)
    caller = Caller(services.encoder, decoder)
    session = caller.open(caller.memory(), request_id="one")
    decoder.service.sessions._sessions[session].last_used -= 1000
    again = caller.open(caller.memory(), request_id="one")
    assert again != session
    with refused(NOT_FOUND, "SESSION_NOT_FOUND"):
        caller.generate(session)
    caller.close_session(again)
    assert decoder.service.budget.used == 0
    caller.close()
