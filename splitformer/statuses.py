"""Exceptions as gRPC statuses and back, with all that they carry in the status' details."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from splitformer.errors import ERRORS_BY_CODE, Code, SplitformerError, Violation

DETAILS_KEY = "grpc-status-details-bin"
"""Trailing metadata under which gRPC carries a serialised google.rpc.Status."""

ERROR_DOMAIN = "splitformer"
"""`domain` of every ErrorInfo of ours."""

_MESSAGE_BYTES = 2000
"""Of a status' message. All trailers together must fit into 8 KiB, which is what gRPC takes."""

_SHORT_BYTES = 1000
"""Of the message beside the status, which has it all."""


def status_of(error: SplitformerError) -> status_pb2.Status:
    """Put an exception into a google.rpc.Status with ErrorInfo and what else it carries."""
    details = [
        error_details_pb2.ErrorInfo(
            reason=error.reason, domain=ERROR_DOMAIN, metadata=error.metadata
        )
    ]
    packed = [_any(detail) for detail in details]
    if error.violations:
        packed.append(_any(_bad_request(error.violations)))
    if error.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after * 1e9))
        packed.append(_any(error_details_pb2.RetryInfo(retry_delay=delay)))
    message = _cut(error.message, _MESSAGE_BYTES)
    return status_pb2.Status(code=error.code, message=message, details=packed)


def short_message(error: SplitformerError) -> str:
    """Return an exception's message as it goes beside its status, where letters count threefold."""
    return _cut(error.message, _SHORT_BYTES // (1 if error.message.isascii() else 3))


def _cut(message: str, size: int) -> str:
    """Return at most `size` bytes of a message, and a sign that there was more."""
    data = message.encode(errors="replace")
    if len(data) <= size:
        return message
    return data[: size - 4].decode(errors="ignore") + " ..."


def error_of(code: int, message: str, details: bytes | None = None) -> SplitformerError:
    """Rebuild the exception from a gRPC status.

    Args:
        code: Number of the status code.
        message: Its details string.
        details: Value of the `grpc-status-details-bin` trailer, if there was one. What our server
            says in it wins over what a proxy made of the status.
    """
    info, bad, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    with contextlib.suppress(DecodeError):  # a proxy's own details; the code still counts
        status = status_pb2.Status.FromString(details or b"")
        for detail in status.details:
            for message_type in (info, bad, retry):
                detail.Unpack(message_type)  # does nothing if it is of another type
        if info.domain == ERROR_DOMAIN:
            code, message = status.code, status.message
    kind = ERRORS_BY_CODE.get(Code(code), SplitformerError)
    return kind(
        message,
        reason=info.reason or None,
        violations=tuple(Violation(v.field, v.description) for v in bad.field_violations),
        retry_after=retry.retry_delay.ToNanoseconds() / 1e9
        if retry.HasField("retry_delay")
        else None,
        metadata=dict(info.metadata),
    )


def _bad_request(violations: Sequence[Violation]) -> error_details_pb2.BadRequest:
    return error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
            for v in violations
        ]
    )


def _any(message: Any) -> any_pb2.Any:
    wrapped = any_pb2.Any()
    wrapped.Pack(message)
    return wrapped
