"""The exceptions: one per status, messages that name field, rule and value, cut to a size."""

from __future__ import annotations

import base64
import importlib
import inspect
import sys
from collections.abc import Callable
from string import printable
from unittest.mock import Mock
from urllib.parse import quote

import grpc
import pytest

from splitformer import errors, statuses
from splitformer.errors import (
    ERRORS_BY_CODE,
    Code,
    InvalidArgumentError,
    SplitformerError,
    Violation,
    check_all,
    shown,
)
from splitformer.serving.languages import unknown_language

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, SplitformerError) and kind is not SplitformerError
]


def test_codes_are_grpcs() -> None:
    assert {code.name: int(code) for code in Code} == {
        status.name: status.value[0] for status in grpc.StatusCode
    }


def test_every_exception_stands_for_one_code() -> None:
    assert sorted(kind.__name__ for kind in ERRORS_BY_CODE.values()) == sorted(
        kind.__name__ for kind in KINDS
    )
    assert all(ERRORS_BY_CODE[kind.code] is kind for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_reasons_are_upper_snake(kind: type[SplitformerError]) -> None:
    reason = kind("message").reason
    assert reason == kind.default_reason
    assert reason.isupper()
    assert reason.replace("_", "").isalnum()
    assert kind("message", reason="OTHER").reason == "OTHER"


def test_an_invalid_argument_names_field_rule_and_value() -> None:
    error = InvalidArgumentError.of("a.b", "must be at least 1", -3, reason="TOO_SMALL")
    assert str(error) == error.message == "a.b: must be at least 1, got -3"
    assert error.violations == (Violation("a.b", "must be at least 1, got -3"),)
    assert error.reason == "TOO_SMALL"


@pytest.mark.parametrize("value", ["x" * 10**6, "ま" * 10**5, list(range(10**5)), {"a": "b" * 999}])
def test_values_are_cut_short_in_messages(value: object) -> None:
    assert len(shown(value)) <= 120
    assert len(InvalidArgumentError.of("a", "must be", value).message) < 150


@pytest.mark.parametrize("value", ["", "x" * 70, 7, None, [1, 2], 0.5])
def test_short_values_are_shown_whole(value: object) -> None:
    assert shown(value) == repr(value)


def test_a_status_fits_into_metadata_whatever_is_wrong() -> None:
    broken = [Violation(f"options.stop[{i}]", f"must not be {'ま' * 70}") for i in range(99)]
    known = tuple(f"l{i:03}_Latn" for i in range(202))
    many = (InvalidArgumentError.of_all(broken), unknown_language("to", known, "ま" * 99))
    for error in (*many, InvalidArgumentError("ま" * 9999)):
        details = statuses.status_of(error).SerializeToString()
        beside = quote(statuses.short_message(error), safe=printable)
        assert len(base64.b64encode(details)) + len(beside) < 8000
        told = statuses.error_of(int(error.code), "", details)
        assert told.violations == error.violations
        assert told.message.endswith("...") or told.message == error.message


def test_checks_that_fail_together_are_told_together() -> None:
    def fail(field: str, reason: str) -> Callable[[], object]:
        error = InvalidArgumentError.of(field, "must be", 1, reason=reason, metadata={"of": field})
        return Mock(side_effect=error)

    check_all(Mock())
    with pytest.raises(InvalidArgumentError) as caught:
        check_all(Mock(), fail("a", "FIRST"), Mock(), fail("b", "SECOND"))
    error = caught.value
    assert (error.reason, error.metadata) == ("FIRST", {"of": "a"})
    assert [violation.field for violation in error.violations] == ["a", "b"]
    assert error.message == "a: must be, got 1; b: must be, got 1"


def test_errors_need_neither_grpc_nor_torch() -> None:
    source = inspect.getsource(importlib.import_module("splitformer.errors"))
    assert "import grpc" not in source
    assert "torch" not in source
    assert "splitformer.errors" in sys.modules
