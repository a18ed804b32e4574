"""Forks: the same memory, another way to go on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from splitformer.v1 import decoder_service_pb2 as dec
from tests.support.rpc import Caller, eventually, refused
from tests.support.servers import ServerThread

INVALID = grpc.StatusCode.INVALID_ARGUMENT
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
SAMPLED: dict[str, Any] = {"temperature": 1.3, "seed": 11}


def fork(caller: Caller, session: str, **fields: Any) -> dec.OpenSessionResponse:
    request = dec.ForkSessionRequest(session_id=session, **fields)
    return caller.decoder.ForkSession(request, timeout=10).session


@pytest.fixture
def parent(caller: Caller) -> Iterator[str]:
    """A session that has produced eight tokens."""
    session = caller.open(caller.memory())
    caller.generate(session, max_new_tokens=8, **SAMPLED)
    yield session
    caller.close_session(session)


def test_parent_and_fork_go_their_own_ways_to_the_same_end(caller: Caller, parent: str) -> None:
    whole = caller.open(caller.memory())
    expected = caller.generate(whole, max_new_tokens=20, **SAMPLED).tokens
    child = fork(caller, parent).session_id
    for session in (parent, child):
        rest = caller.generate(session, 0, max_new_tokens=20, **SAMPLED).tokens
        assert [token.id for token in rest] == [token.id for token in expected]
        assert "".join(t.text for t in rest) == "".join(t.text for t in expected)
    for session in (whole, child):
        caller.close_session(session)


@pytest.mark.parametrize("kept", [0, 1, 5, 8])
def test_a_fork_keeps_what_it_is_told_and_continues_identically(
    caller: Caller, parent: str, kept: int
) -> None:
    before = caller.generate(parent, 0, max_new_tokens=8, **SAMPLED).tokens
    child = fork(caller, parent, keep_tokens=kept).session_id
    assert caller.session(child).tokens == kept
    again = caller.generate(child, max_new_tokens=8 - kept or None, **SAMPLED).tokens
    assert [t.id for t in again[: 8 - kept]] == [t.id for t in before[kept:]]
    assert caller.session(parent).tokens == 8
    caller.close_session(child)


def test_a_fork_into_another_language_starts_from_the_beginning(
    caller: Caller, parent: str
) -> None:
    child = fork(caller, parent, target_language="ja").session_id
    fresh = caller.open(caller.memory(), "ja")
    assert caller.session(child).target_language == "ja"
    assert [t.id for t in caller.generate(child, max_new_tokens=9).tokens] == [
        t.id for t in caller.generate(fresh, max_new_tokens=9).tokens
    ]
    for session in (child, fresh):
        caller.close_session(session)


def test_the_memory_counts_once_and_goes_with_its_last_holder(caller: Caller) -> None:
    session = caller.open(caller.memory())
    alone = caller.footprint()["decoder bytes"]
    child = fork(caller, session)
    both = caller.footprint()["decoder bytes"]
    assert child.size_bytes == alone
    own = both - alone
    assert 0 < own < alone
    assert caller.close_session(session).freed_bytes == own
    assert caller.generate(child.session_id, max_new_tokens=3).tokens
    assert caller.close_session(child.session_id).freed_bytes == alone


def test_forking_is_idempotent_by_request_id(caller: Caller, parent: str) -> None:
    first, again = (fork(caller, parent, request_id="fork-1").session_id for _ in range(2))
    assert first == again
    caller.close_session(first)


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"keep_tokens": -1}, INVALID, "BAD_KEEP"),
        ({"keep_tokens": 2, "target_language": "ja"}, INVALID, "BAD_KEEP"),
        ({"keep_tokens": 9}, PRECONDITION, "KEEP_AHEAD"),
        ({"target_language": "xx"}, INVALID, "UNKNOWN_LANGUAGE"),
    ],
)
def test_bad_forks_are_refused(
    caller: Caller, parent: str, fields: dict[str, Any], code: grpc.StatusCode, reason: str
) -> None:
    with caller.nothing_left_behind(), pytest.raises(grpc.RpcError) as caught:
        fork(caller, parent, **fields)
    assert caught.value.code() is code
    assert reason in str(caught.value.trailing_metadata())


def test_an_unknown_session_cannot_be_forked(caller: Caller) -> None:
    with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
        fork(caller, "0" * 32)


def test_a_closed_session_cannot_be_forked(caller: Caller, parent: str) -> None:
    child = fork(caller, parent).session_id
    caller.close_session(child)
    with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
        fork(caller, child)


def test_a_fork_beyond_the_budget_is_refused_and_leaves_nothing(
    tiny_model: Path, servers: ServerThread
) -> None:
    encoder = servers.start_encoder(tiny_model)
    decoder = servers.start_decoder(tiny_model, encoder, memory_bytes=60_000)
    caller = Caller(encoder, decoder)
    session = caller.open(caller.memory())
    used = caller.footprint()
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVER_BUDGET"):
        fork(caller, session)
    eventually(lambda: caller.footprint() == used)
    caller.close()
