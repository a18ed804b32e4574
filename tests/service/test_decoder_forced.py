"""Forced tokens: taken instead of chosen, with their own probability, remembered like others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from splitformer.v1 import decoder_service_pb2 as dec, encoder_service_pb2 as enc
from tests.support.checkpoints import MAX_POSITIONS
from tests.support.reference import Reference
from tests.support.rpc import TEXT, Caller, refused

SAMPLED: dict[str, Any] = {"temperature": 1.0, "seed": 7}
EOS = 1


@pytest.fixture
def session(caller: Caller) -> Iterator[str]:
    session = caller.open(caller.memory())
    yield session
    caller.close_session(session)


@pytest.mark.parametrize("options", [{}, SAMPLED], ids=["greedy", "sampled"])
def test_a_forced_token_goes_on_as_a_prefix_would(
    caller: Caller, session: str, options: dict[str, Any]
) -> None:
    first = caller.step(session, 0, **options).token
    likeliest = {first.id, *(other.id for other in caller.step(session, 0).token.alternatives)}
    forced = next(token for token in (300, 301) if token not in likeliest)
    taken = caller.step(session, 1, forced_token=forced, **options).token
    assert (taken.index, taken.id) == (1, forced)
    assert taken.log_probability < 0
    rest = caller.generate(session, max_new_tokens=8, **options)
    prefix = dec.TargetPrefix(tokens=enc.TokenIds(ids=[first.id, forced]))
    twin = caller.open(caller.memory(), target_prefix=prefix)
    if not options:  # a draw depends on the position in the target, which a prefix does not count
        again = caller.generate(twin, max_new_tokens=8)
        assert rest.ids == again.ids
        assert [t.log_probability for t in rest.tokens] == [t.log_probability for t in again.tokens]
    caller.close_session(twin)


def test_forcing_what_would_be_chosen_changes_nothing(caller: Caller, reference: Reference) -> None:
    produced = reference.target(TEXT, "de").produced
    session = caller.open(caller.memory())
    for index, token in enumerate(produced):
        answer = caller.step(session, index, forced_token=token.id).token
        assert (answer.id, answer.text) == (token.id, token.text)
        assert answer.log_probability == token.log_probability, "to the bit"
    assert caller.step(session, MAX_POSITIONS, forced_token=5).end.reason == dec.END_REASON_LENGTH
    caller.close_session(session)


def test_a_forced_end_token_ends_the_target(caller: Caller, session: str) -> None:
    caller.step(session, 0)
    for _ in range(2):  # computed, then remembered
        end = caller.step(session, 1, forced_token=EOS, min_new_tokens=5).end
        assert end.reason == dec.END_REASON_EOS
        assert end.log_probability < 0
    assert caller.session(session).state == dec.SESSION_STATE_ENDED
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "TOKEN_ALREADY_TAKEN"):
        caller.step(session, 1, forced_token=300)


def test_it_is_answered_from_the_record_and_never_taken_back(caller: Caller) -> None:
    session = caller.open(caller.memory())
    taken = [caller.step(session, i, forced_token=t).token for i, t in enumerate((300, 301, 302))]
    assert caller.step(session, 1, forced_token=301).token == taken[1]
    assert caller.step(session, 1).token == taken[1]
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "TOKEN_ALREADY_TAKEN"):
        caller.step(session, 1, forced_token=300)
    replayed = caller.generate(session, 0, max_new_tokens=3, close_on_end=True)
    assert replayed.tokens == taken
    assert caller.step(session, 2, forced_token=302).token == taken[2], "let go, but remembered"
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "TOKEN_ALREADY_TAKEN"):
        caller.step(session, 2, forced_token=300)


@pytest.mark.parametrize("token", [-1, 100_000])
def test_ids_outside_the_vocabulary_are_refused(caller: Caller, session: str, token: int) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_OPTION", "forced_token", token):
        caller.step(session, 0, forced_token=token)
    with pytest.raises(grpc.RpcError) as caught:
        caller.step(session, 0, forced_token=token, suppressed_tokens=[7, -3])
    call: Any = caught.value
    assert "options.suppressed_tokens[1]: " in call.details()
    assert "forced_token: " in call.details()
    assert caller.session(session).tokens == 0
