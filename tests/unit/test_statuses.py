"""Exceptions as gRPC statuses and back."""

from __future__ import annotations

import pytest

from splitformer import statuses
from splitformer.errors import ERRORS_BY_CODE, NotFoundError, SplitformerError, Violation


@pytest.mark.parametrize("kind", ERRORS_BY_CODE.values())
def test_an_error_survives_the_wire(kind: type[SplitformerError]) -> None:
    error = kind(
        "something: was wrong, got 'ü'",
        reason="SOME_REASON",
        violations=(Violation("a.b[3]", "must be, got 1"), Violation("c", "must not")),
        retry_after=1.25,
        metadata={"limit": "7"},
    )
    status = statuses.status_of(error)
    back = statuses.error_of(status.code, status.message, status.SerializeToString())
    assert type(back) is kind
    assert vars(back) == vars(error)


def test_an_error_without_extras_survives_the_wire() -> None:
    status = statuses.status_of(NotFoundError("gone"))
    back = statuses.error_of(status.code, status.message, status.SerializeToString())
    assert vars(back) == vars(NotFoundError("gone"))
    assert len(status.details) == 1


@pytest.mark.parametrize("details", [None, b"", b"\xff\xff\xff", b"\x1a\x02\x0a\x09"])
def test_a_status_of_somebody_else_is_an_error_too(details: bytes | None) -> None:
    error = statuses.error_of(14, "no route", details)
    assert (type(error), error.reason, error.message) == (
        ERRORS_BY_CODE[error.code],
        "UNAVAILABLE",
        "no route",
    )
    assert type(statuses.error_of(2, "?", details)) is SplitformerError


def test_what_our_server_says_wins_over_what_a_proxy_makes_of_it() -> None:
    said = statuses.status_of(NotFoundError("gone", reason="SESSION_NOT_FOUND")).SerializeToString()
    error = statuses.error_of(1, "Received RST_STREAM with error code 8", said)
    assert (type(error), error.reason, error.message) == (
        NotFoundError,
        "SESSION_NOT_FOUND",
        "gone",
    )
