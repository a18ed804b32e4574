"""Sending traces away, if the environment says where to: OpenTelemetry's own variables."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import splitformer
from splitformer.errors import ConfigurationError

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def start_tracing(service: str, environment: Mapping[str, str]) -> Callable[[], None]:
    """Set tracing up where one of `ENDPOINTS` is set; return what sends the rest at the end.

    Raises:
        ConfigurationError: A variable asks for traces, and the extra [otel] is not installed.
    """
    given = next((name for name in ENDPOINTS if environment.get(name)), None)
    if given is None:
        return lambda: None
    try:
        from opentelemetry import trace  # noqa: PLC0415 (an extra)
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider, export  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(
            f"{given}: traces need what `pip install splitformer[otel]` installs"
        ) from error
    about = {"service.name": service, "service.version": splitformer.__version__}
    provider = TracerProvider(resource=Resource.create(about))
    provider.add_span_processor(export.BatchSpanProcessor(trace_exporter.OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider.shutdown
