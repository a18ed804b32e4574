"""Traces, where OpenTelemetry's API is installed and an application or a service has set it up.

Otherwise everything here does nothing, at next to no cost. Spans are passed on explicitly, or
through `serve` within one RPC, and never made OpenTelemetry's current ones: an asynchronous
generator would leave them behind in whoever reads it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

try:
    from opentelemetry import context, propagate, trace

    INSTALLED = True
except ImportError:  # the extra [otel]
    INSTALLED = False

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span as RealSpan

Metadata = tuple[tuple[str, str], ...]
_NAME = "splitformer"


class Span:
    """One piece of work in a trace.

    Args:
        context: What spans below it are made in; None: there are no traces.
        span: The span itself; None: this is but a place where spans can be made.
    """

    __slots__ = ("_context", "_span")

    def __init__(self, context: Context | None = None, span: RealSpan | None = None) -> None:
        self._context = context
        self._span = span

    @property
    def recording(self) -> bool:
        """True if somebody will see it."""
        return self._span is not None and self._span.is_recording()

    @property
    def metadata(self) -> Metadata:
        """What an RPC carries so that the other side's spans come below this one."""
        carrier: dict[str, str] = {}
        if self._context is not None:
            propagate.inject(carrier, self._context)
        return tuple(carrier.items())

    def below(self, name: str, kind: str = "INTERNAL", start: int | None = None) -> Span:
        """Begin a span below this one; `start` in nanoseconds since 1970 if not now."""
        if self._context is None:
            return self
        span = trace.get_tracer(_NAME).start_span(
            name, self._context, trace.SpanKind[kind], start_time=start
        )
        return Span(trace.set_span_in_context(span, self._context), span)

    def end(self, code: str = "OK", reason: str = "", at: int | None = None) -> None:
        """End it with a status code of gRPC and the reason of a failure."""
        if self._span is None:
            return
        if code != "OK":
            self._span.set_status(trace.StatusCode.ERROR, reason or code)
            self._span.set_attribute("rpc.response.status_code", code)
        self._span.end(at)

    def note(self, **attributes: str | float) -> None:
        """Add attributes, under names of ours."""
        if self._span is not None:
            for name, value in attributes.items():
                self._span.set_attribute(f"{_NAME}.{name}", value)


NOTHING = Span()
_serving: ContextVar[Span] = ContextVar("serving", default=NOTHING)


def here() -> Span:
    """Where the caller's application is in its own trace."""
    return Span(context.get_current()) if INSTALLED else NOTHING


def serve(name: str, metadata: Mapping[str, str | bytes]) -> Span:
    """Begin the span of an RPC that we answer, below the caller's; the rest of it can see it."""
    if not INSTALLED or _unseen(metadata):
        return NOTHING
    carrier = {key: value for key, value in metadata.items() if isinstance(value, str)}
    span = Span(propagate.extract(carrier, context=context.Context())).below(name, "SERVER")
    _serving.set(span)
    return span


def _unseen(metadata: Mapping[str, str | bytes]) -> bool:
    """True if nobody records spans here, and the caller says of no trace that would go on."""
    recorded = not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    return not recorded and propagate.get_global_textmap().fields.isdisjoint(metadata)


@contextmanager
def operation(name: str) -> Iterator[Span]:
    """The span of something that takes several RPCs, below the application's own."""
    with _ended(here().below(name)) as span:
        yield span


@contextmanager
def onward(name: str) -> Iterator[Span]:
    """The span of an RPC that we make on behalf of the one we answer."""
    with _ended(_serving.get().below(name, "CLIENT")) as span:
        yield span


@contextmanager
def _ended(span: Span) -> Iterator[Span]:
    code, reason = "OK", ""
    try:
        yield span
    except GeneratorExit:  # the reader has seen enough
        raise
    except BaseException as error:
        code = getattr(getattr(error, "code", None), "name", type(error).__name__)
        reason = getattr(error, "reason", "")
        raise
    finally:
        span.end(code, reason)


def parts(**seconds: float) -> None:
    """Record what the RPC that we answer has just spent its time with, one after the other."""
    serving = _serving.get()
    if not serving.recording:
        return
    at = time.time_ns() - int(sum(seconds.values()) * 1e9)
    for name, duration in seconds.items():
        span = serving.below(name, start=at)
        at += int(duration * 1e9)
        span.end(at=at)


def note(**attributes: str | float) -> None:
    """Add attributes to the span of the RPC that we answer."""
    _serving.get().note(**attributes)
