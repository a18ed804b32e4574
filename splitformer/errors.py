"""What can go wrong for a user, as exceptions that name the argument, the rule and the value.

Every exception carries the gRPC status code its kind maps to and an UPPER_SNAKE reason. Together
they are the one table between exceptions and statuses: the servers read it forwards, the client
backwards (`splitformer.statuses`). This module knows nothing of gRPC itself; codes are the numbers
of `google.rpc.Code`.
"""

from __future__ import annotations

import enum
import reprlib
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar, Self


class Code(enum.IntEnum):
    """Status codes, numbered as in google/rpc/code.proto."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


_SHOWN_CHARACTERS = 80
_TOLD_BYTES = 1900
"""Of all violations of one request: they travel in metadata, of which gRPC takes 8 KiB."""

_SHORTENER = reprlib.Repr()
_SHORTENER.maxstring = _SHORTENER.maxother = _SHOWN_CHARACTERS


def shown(value: object) -> str:
    """Return a value as it appears in messages, cut short: they travel in limited metadata."""
    return _SHORTENER.repr(value)


@dataclass(frozen=True, slots=True)
class Violation:
    """One field of a request that broke a rule.

    Attributes:
        field: Path of the field in the request, for example `source.text`.
        description: The rule and the value that broke it.
    """

    field: str
    description: str


class SplitformerError(Exception):
    """Base of everything a caller can run into.

    Args:
        message: One sentence for a person: what was wrong and which value was seen.
        reason: UPPER_SNAKE reason for machines; each subclass has a default.
        violations: The fields that broke a rule, if the request was at fault.
        retry_after: Seconds after which trying again makes sense, or None.
        metadata: More facts for machines, for example the limit that was exceeded.
    """

    code: ClassVar[Code] = Code.UNKNOWN
    default_reason: ClassVar[str] = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        violations: tuple[Violation, ...] = (),
        retry_after: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.violations = violations
        self.retry_after = retry_after
        self.metadata = dict(metadata or {})


class InvalidArgumentError(SplitformerError):
    """The request broke a rule that no retry will mend."""

    code = Code.INVALID_ARGUMENT
    default_reason = "INVALID_ARGUMENT"

    @classmethod
    def of(
        cls,
        field: str,
        rule: str,
        value: object,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> InvalidArgumentError:
        """Build the error for one field, naming field, rule and value."""
        description = f"{rule}, got {shown(value)}"
        return cls(
            f"{field}: {description}",
            reason=reason,
            violations=(Violation(field, description),),
            metadata=metadata,
        )

    @classmethod
    def of_all(
        cls, broken: Sequence[Violation], *, reason: str | None = None, more: int = 0
    ) -> Self:
        """Build the error for several fields; what does not fit into a status is only counted.

        Args:
            broken: At least one.
            reason: UPPER_SNAKE reason.
            more: How many there are beside those.
        """
        sizes = (len(f"{v.field}: {v.description}; ".encode(errors="replace")) for v in broken)
        ends = list(accumulate(sizes))
        told = broken[: max(1, bisect_right(ends, _TOLD_BYTES))]
        parts = [f"{each.field}: {each.description}" for each in told]
        if left := more + len(broken) - len(told):
            parts.append(f"and {left} more")
        return cls("; ".join(parts), reason=reason, violations=tuple(told))


def violations_of_ids(
    ids: Sequence[int], size: int, field: str, most: int = 100
) -> tuple[list[Violation], int]:
    """Name ids that a vocabulary of `size` does not have, `most` of them; count the others.

    Args:
        ids: Any numbers.
        size: V.
        field: Of the request, which holds them.
        most: So many ids may be all wrong that naming them takes long.
    """
    if not ids or 0 <= min(ids) <= max(ids) < size:
        return [], 0
    wrong = [i for i, token in enumerate(ids) if not 0 <= token < size]
    rule = f"must be at least 0 and below {size}"
    named = [Violation(f"{field}[{i}]", f"{rule}, got {ids[i]}") for i in wrong[:most]]
    return named, len(wrong) - len(named)


def check_all(*checks: Callable[[], Any]) -> list[Any]:
    """Run checks and return what they do; one error for all that fail, of the first's reason.

    Raises:
        InvalidArgumentError: With every violation.
    """
    failed, results = list[InvalidArgumentError](), list[Any]()
    for check in checks:
        try:
            results.append(check())
        except InvalidArgumentError as error:
            failed.append(error)
    if len(failed) == 1:
        raise failed[0]
    if failed:
        broken = [violation for error in failed for violation in error.violations]
        found = InvalidArgumentError.of_all(broken, reason=failed[0].reason)
        found.metadata = failed[0].metadata
        raise found
    return results


class NotFoundError(SplitformerError):
    """The session, memory, lease or model is unknown, has expired or was let go."""

    code = Code.NOT_FOUND
    default_reason = "NOT_FOUND"


class AlreadyExistsError(SplitformerError):
    """What is asked for is there already."""

    code = Code.ALREADY_EXISTS
    default_reason = "ALREADY_EXISTS"


class PermissionDeniedError(SplitformerError):
    """The caller may not do this, or the server may not go where the request points."""

    code = Code.PERMISSION_DENIED
    default_reason = "PERMISSION_DENIED"


class FailedPreconditionError(SplitformerError):
    """The request is well formed but does not fit the state of things."""

    code = Code.FAILED_PRECONDITION
    default_reason = "FAILED_PRECONDITION"


class AbortedError(SplitformerError):
    """Another call is using the same session."""

    code = Code.ABORTED
    default_reason = "SESSION_BUSY"


class ResourceExhaustedError(SplitformerError):
    """A byte budget or queue is full; `retry_after` says when to try again."""

    code = Code.RESOURCE_EXHAUSTED
    default_reason = "OVER_BUDGET"


class DataLossError(SplitformerError):
    """Bytes were altered or lost on their way."""

    code = Code.DATA_LOSS
    default_reason = "CORRUPT_CHUNK"


class UnavailableError(SplitformerError):
    """The service, or one that it depends on, cannot be reached or is going away."""

    code = Code.UNAVAILABLE
    default_reason = "UNAVAILABLE"

    @classmethod
    def stopped(cls) -> UnavailableError:
        """Build the error for work that a service can no longer do because it has stopped."""
        return cls("the service has stopped", reason="DRAINING", retry_after=1.0)


class UnimplementedError(SplitformerError):
    """The protocol has it, this version does not."""

    code = Code.UNIMPLEMENTED
    default_reason = "UNIMPLEMENTED"


class DeadlineExceededError(SplitformerError):
    """The caller's deadline passed before the work was done."""

    code = Code.DEADLINE_EXCEEDED
    default_reason = "DEADLINE_EXCEEDED"


class CancelledError(SplitformerError):
    """The call was cancelled by its caller."""

    code = Code.CANCELLED
    default_reason = "CANCELLED"


class UnauthenticatedError(SplitformerError):
    """The caller did not say who it is, or could not prove it."""

    code = Code.UNAUTHENTICATED
    default_reason = "UNAUTHENTICATED"


class InternalError(SplitformerError):
    """A fault of ours. The message names the request id under which the log has the details."""

    code = Code.INTERNAL
    default_reason = "INTERNAL"


ERRORS_BY_CODE: Mapping[Code, type[SplitformerError]] = {
    error.code: error
    for error in (
        InvalidArgumentError,
        NotFoundError,
        AlreadyExistsError,
        PermissionDeniedError,
        FailedPreconditionError,
        AbortedError,
        ResourceExhaustedError,
        DataLossError,
        UnavailableError,
        UnimplementedError,
        DeadlineExceededError,
        CancelledError,
        UnauthenticatedError,
        InternalError,
    )
}
"""The table: each status code and the exception that stands for it."""


class ConfigurationError(ValueError):
    """A setting, option or checkpoint is unknown, malformed or contradicts another one."""
