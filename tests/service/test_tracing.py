"""One trace leads from the client through the encoder and the decoder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from splitformer import tracing
from splitformer.errors import ConfigurationError, SplitformerError
from splitformer.serving import traces
from splitformer_client import aio, connect
from tests.conftest import Services
from tests.support.rpc import eventually
from tests.support.servers import ServerThread

TEXT = "Open the file."
ENCODER, DECODER = "splitformer.v1.EncoderService", "splitformer.v1.DecoderService"
OPERATION = "splitformer.translate"


@pytest.fixture(scope="module")
def exporter() -> Iterator[InMemorySpanExporter]:
    """Where the spans of client and services end up; there is one provider for a process."""
    found = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(found))
    trace.set_tracer_provider(provider)
    yield found
    provider.shutdown()


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> InMemorySpanExporter:
    exporter.clear()
    return exporter


def finished(spans: InMemorySpanExporter, name: str, kind: str) -> list[ReadableSpan]:
    wanted = trace.SpanKind[kind]
    return [s for s in spans.get_finished_spans() if s.name == name and s.kind is wanted]


def parent_of(span: ReadableSpan, spans: InMemorySpanExporter) -> ReadableSpan:
    assert span.parent is not None
    (found,) = (
        other
        for other in spans.get_finished_spans()
        if other.context.span_id == span.parent.span_id
    )
    return found


def lineage(span: ReadableSpan, spans: InMemorySpanExporter) -> list[tuple[str, str]]:
    """Names and kinds from a span up to its root."""
    found = [(span.name, span.kind.name)]
    while span.parent is not None:
        span = parent_of(span, spans)
        found.append((span.name, span.kind.name))
    return found


@pytest.fixture
def addresses(servers: ServerThread, services: Services) -> tuple[str, str]:
    """Services of the test's own, so that no other test's RPCs come in between."""
    encoder = servers.start_encoder(services.model, inline_bytes=0)
    decoder = servers.start_decoder(services.model, encoder, shared_memory=False)
    return encoder.address, decoder.address


def test_one_trace_from_the_client_through_the_encoder_and_the_decoder(
    spans: InMemorySpanExporter, addresses: tuple[str, str]
) -> None:
    with connect(*addresses) as client:
        client.translate(TEXT, to=("ja", "de"), max_new_tokens=3)
    eventually(lambda: len(finished(spans, f"{ENCODER}/ReleaseMemory", "SERVER")) == 3)
    eventually(lambda: len(finished(spans, OPERATION, "INTERNAL")) == 1)
    operation = (OPERATION, "INTERNAL")
    both = ("CLIENT", "SERVER")
    for name in (f"{ENCODER}/Encode", f"{DECODER}/OpenSession", f"{DECODER}/Generate"):
        for span in finished(spans, name, "SERVER"):
            assert lineage(span, spans) == [(name, "SERVER"), (name, "CLIENT"), operation]
    fetches = finished(spans, f"{ENCODER}/FetchMemory", "SERVER")
    assert len(fetches) == 2
    for span in fetches:
        assert lineage(span, spans) == [
            *((f"{ENCODER}/FetchMemory", kind) for kind in reversed(both)),
            *((f"{DECODER}/OpenSession", kind) for kind in reversed(both)),
            operation,
        ]
    assert len({span.context.trace_id for span in spans.get_finished_spans()}) == 1


def test_the_parts_of_an_rpc_lie_within_it_one_after_the_other(
    spans: InMemorySpanExporter, addresses: tuple[str, str]
) -> None:
    with connect(*addresses) as client:
        client.translate(TEXT, to="de", max_new_tokens=3)
    eventually(lambda: len(finished(spans, OPERATION, "INTERNAL")) == 1)
    for rpc, names in {
        f"{ENCODER}/Encode": ["tokenize", "queue", "encode"],
        f"{DECODER}/OpenSession": ["transfer", "project"],
        f"{DECODER}/Generate": ["queue", "decode"],
    }.items():
        (server,) = finished(spans, rpc, "SERVER")
        parts = [
            s
            for s in spans.get_finished_spans()
            if s.parent and s.parent.span_id == server.context.span_id and s.kind.name == "INTERNAL"
        ]
        parts.sort(key=lambda span: (span.start_time or 0, span.end_time or 0))
        assert sorted(span.name for span in parts) == sorted(names)
        times = [time for span in parts for time in (span.start_time, span.end_time)]
        assert times == sorted(times, key=lambda time: time or 0)
    (encode,) = finished(spans, f"{ENCODER}/Encode", "SERVER")
    assert encode.attributes is not None
    assert encode.attributes["splitformer.source_tokens"] > 1  # type: ignore[operator]
    assert encode.attributes["splitformer.request_id"]


def test_failures_are_told_and_no_text_is(
    spans: InMemorySpanExporter, addresses: tuple[str, str]
) -> None:
    with connect(*addresses) as client, pytest.raises(SplitformerError):
        client.translate("Zebrawombat", to="tlh")
    name = f"{DECODER}/OpenSession"
    eventually(lambda: len(finished(spans, OPERATION, "INTERNAL")) == 1)
    eventually(lambda: len(finished(spans, name, "CLIENT")) == 1)
    (server,), (client_side,) = finished(spans, name, "SERVER"), finished(spans, name, "CLIENT")
    for span in (server, client_side, finished(spans, OPERATION, "INTERNAL")[0]):
        assert span.status.status_code is trace.StatusCode.ERROR, span.name
        assert span.attributes is not None
        assert span.attributes["rpc.response.status_code"] == "INVALID_ARGUMENT"
    assert server.status.description == "UNKNOWN_LANGUAGE"
    assert "Zebrawombat" not in "".join(span.to_json() for span in spans.get_finished_spans())


async def test_an_applications_own_span_is_above_and_stays_current(
    spans: InMemorySpanExporter, addresses: tuple[str, str]
) -> None:
    tracer = trace.get_tracer("application")
    async with aio.connect(*addresses) as client:
        with tracer.start_as_current_span("request") as ours:
            async for _ in client.translate_stream(TEXT, to="de", max_new_tokens=3):
                assert trace.get_current_span() is ours
            await client.encoder_info()
    (operation,) = finished(spans, OPERATION, "INTERNAL")
    assert parent_of(operation, spans).name == "request"
    infos = finished(spans, f"{ENCODER}/GetModelInfo", "CLIENT")
    assert "request" in [parent_of(info, spans).name for info in infos]


def test_without_the_extra_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "INSTALLED", False)
    assert tracing.here() is tracing.serve("x", {}) is tracing.NOTHING
    with tracing.operation("x") as span:
        assert span.metadata == ()
        assert not span.recording
    tracing.parts(queue=1.0)
    tracing.note(steps=1)


def test_a_process_without_opentelemetry_works() -> None:
    code = (
        "import sys\n"
        "sys.modules['opentelemetry'] = None\n"
        "import splitformer.tracing as tracing, splitformer_client.aio\n"
        "print(tracing.INSTALLED)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_asking_for_traces_without_the_extra_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc", None)
    with pytest.raises(
        ConfigurationError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT: traces need .*otel"
    ):
        traces.start_tracing("svc", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
    traces.start_tracing("svc", {})()


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes spans as a collector of traces does, and keeps their names."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.names += [span.name for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


@contextmanager
def collecting() -> Iterator[tuple[Collector, int]]:
    """Run a collector; give it and its port."""
    collector, server = Collector(), grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield collector, port
    server.stop(None)


def test_a_service_sends_its_spans_to_a_collector(tiny_model: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-m", "encoder_service", "--port", "0", "--metrics-port", "0"]
    with collecting() as (collector, port):
        with log.open("w") as file:
            process = subprocess.Popen(
                [*command, "--model", str(tiny_model)],
                env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"},
                stderr=file,
            )
        eventually(lambda: '"event": "serving"' in log.read_text())
        serving = next(line for line in log.read_text().splitlines() if '"serving"' in line)
        with connect(f"127.0.0.1:{json.loads(serving)['port']}", "127.0.0.1:1") as client:
            client.encode(TEXT)
        process.terminate()
        assert process.wait(30) == 0
    assert {f"{ENCODER}/Encode", "encode"} <= set(collector.names)
