"""What the services tell those who run them: faults, metrics, logs."""

from __future__ import annotations

import json
import logging
import re
import urllib.request
from typing import Any
from unittest.mock import ANY

import grpc
import pytest
from google.protobuf import descriptor_pool

from encoder_service.engine import EncoderEngine
from splitformer.errors import Code
from splitformer.serving.interceptor import REQUEST_ID_KEY
from splitformer.serving.logs import JsonFormatter
from splitformer.serving.reasons import REASONS
from splitformer.v1 import decoder_service_pb2 as dec, encoder_service_pb2 as enc
from tests.conftest import Services
from tests.support.gate import gate_of
from tests.support.rpc import TEXT, Caller, eventually, refused
from tests.support.servers import Running, ServerThread

ENCODER = "splitformer.v1.EncoderService"
MARKER = "Zebrawombat"


def page(running: Running[Any]) -> str:
    url = f"http://127.0.0.1:{running.server.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as response:
        text: str = response.read().decode()
    return text


# --- faults


def test_an_encoder_fault_is_internal_with_a_request_id_and_logged_once(
    caller: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: EncoderEngine, batch: object) -> Any:
        raise RuntimeError("broken on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(EncoderEngine, "encode_batch", broken)
        with refused(grpc.StatusCode.INTERNAL, "INTERNAL") as refusal:
            request = enc.EncodeRequest(source=enc.Source(text=TEXT))
            caller.encoder.Encode(request, metadata=((REQUEST_ID_KEY, "abc-1"),))
    assert "abc-1" in refusal.error.message
    assert "broken" not in refusal.error.message
    check_fault_log(caplog, "abc-1")


def test_a_decoder_fault_is_internal_with_a_request_id_and_logged_once(
    caller: Caller, services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    session = caller.open(caller.memory())
    with gate_of(services.decoder.service) as gate:
        gate.failures = 1
        request = dec.GenerateRequest(session_id=session)
        with refused(grpc.StatusCode.INTERNAL, "INTERNAL") as refusal:
            list(caller.decoder.Generate(request, metadata=((REQUEST_ID_KEY, "abc-2"),)))
    assert "abc-2" in refusal.error.message
    check_fault_log(caplog, "abc-2")


def test_a_fault_outside_the_engines_is_told_the_same_way(
    caller: Caller,
    services: Services,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: object) -> None:
        raise NotImplementedError("broken on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(services.decoder.service.sessions, "record", broken)
        with refused(grpc.StatusCode.INTERNAL, "INTERNAL") as refusal:
            caller.session("x")
    identity = refusal.error.message.rpartition(" ")[2]
    assert re.fullmatch("[0-9a-f]{32}", identity)
    check_fault_log(caplog, identity)


def check_fault_log(caplog: pytest.LogCaptureFixture, request_id: str) -> None:
    records = [r for r in caplog.records if r.name.startswith("splitformer.")]
    tracebacks = [r for r in records if r.exc_info]
    assert len(tracebacks) == 1
    assert "broken on purpose" in str(tracebacks[0].exc_info[1])  # type: ignore[index]
    fields = [getattr(r, "fields", {}) for r in records if r.levelno >= logging.ERROR]
    assert request_id in [values.get("request_id") for values in fields]


# --- metrics


def test_the_metrics_page_tells_requests_latencies_tokens_sessions_and_bytes(
    caller: Caller, services: Services
) -> None:
    reference = caller.reference()
    session = caller.open_reference(reference)
    tokens = services.decoder.metric("splitformer_decoder_tokens_total")
    caller.generate(session, max_new_tokens=5)
    text = page(services.decoder)
    for name, value in {
        "splitformer_decoder_tokens_total": tokens + 5,
        "splitformer_decoder_sessions": 1.0,
        "splitformer_decoder_memory_bytes": float(caller.session(session).size_bytes),
        "splitformer_decoder_memory_budget_bytes": float(2**30),
    }.items():
        assert value_of(text, name) == value, name
    for name in (
        "splitformer_decoder_time_to_first_token_seconds_count",
        "splitformer_decoder_inter_token_seconds_count",
        "splitformer_decoder_queue_seconds_count",
        "splitformer_decoder_batch_size_count",
        'grpc_server_handled_total{grpc_code="OK",grpc_method="Generate"'
        ',grpc_service="splitformer.v1.DecoderService"}',
        'grpc_server_handling_seconds_count{grpc_method="Generate"'
        ',grpc_service="splitformer.v1.DecoderService"}',
        'grpc_server_msg_sent_total{grpc_method="Generate"'
        ',grpc_service="splitformer.v1.DecoderService"}',
        "process_resident_memory_bytes",
    ):
        assert value_of(text, name) > 0, name
    encoder = page(services.encoder)
    assert value_of(encoder, "splitformer_encoder_memories") == 1
    assert value_of(encoder, "splitformer_encoder_memory_bytes") > 0
    assert value_of(encoder, "splitformer_encoder_sources_total") > 0
    assert value_of(encoder, "splitformer_encoder_encode_seconds_count") > 0
    caller.close_session(session)
    caller.release(reference)


def test_all_series_exist_before_anything_happens(
    servers: ServerThread, services: Services
) -> None:
    encoder = servers.start_encoder(services.model)
    running: dict[str, Running[Any]] = {
        ENCODER: encoder,
        "splitformer.v1.DecoderService": servers.start_decoder(services.model, encoder),
    }
    for service, server in running.items():
        text = page(server)
        for method in descriptor_pool.Default().FindServiceByName(service).methods:
            of = f'grpc_method="{method.name}",grpc_service="{service}"'
            for code in Code:
                name = f'grpc_server_handled_total{{grpc_code="{code.name}",{of}}}'
                assert value_of(text, name) == 0
            assert value_of(text, f"grpc_server_handling_seconds_count{{{of}}}") == 0
        for code_name, reason in REASONS:
            name = f'splitformer_failures_total{{grpc_code="{code_name}",reason="{reason}"}}'
            assert value_of(text, name) == 0
        declared = re.findall(r"^# TYPE (splitformer_\w+)", text, re.MULTILINE)
        bare = [name for name in declared if not re.search(f"^{name}(_count)?[{{ ]", text, re.M)]
        assert bare == []
        assert value_of(text, "splitformer_serving") == 1
    text = page(encoder)
    assert text.count("splitformer_model_info{") == 1
    assert value_of(text, "splitformer_encoder_queue_limit") == 1024


def test_no_series_comes_with_requests(caller: Caller, services: Services) -> None:
    def series() -> set[str]:
        lines = (page(services.encoder) + page(services.decoder)).splitlines()
        return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}

    before = series()
    with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
        caller.session("nobody's")
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "SOURCE_TOO_LONG", "source.text", ANY):
        caller.memory(MARKER * 20)
    caller.check_works()
    assert series() == before


def test_failures_are_counted_by_code_and_reason(caller: Caller, services: Services) -> None:
    labels = {"grpc_code": "NOT_FOUND", "reason": "SESSION_NOT_FOUND"}
    before = services.decoder.metric("splitformer_failures_total", **labels)
    with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
        caller.session("nobody's")
    eventually(
        lambda: services.decoder.metric("splitformer_failures_total", **labels) == before + 1
    )


def test_the_fan_out_of_a_memory_is_counted_when_it_goes(
    caller: Caller, services: Services
) -> None:
    fetches = "splitformer_encoder_memory_fetches"
    count, total = (services.encoder.metric(f"{fetches}_{part}") for part in ("count", "sum"))
    reference = caller.reference()
    for _ in range(3):
        caller.close_session(caller.open_reference(reference))
    assert services.encoder.metric(f"{fetches}_count") == count
    caller.release(reference)
    eventually(lambda: services.encoder.metric(f"{fetches}_count") == count + 1)
    assert services.encoder.metric(f"{fetches}_sum") == total + 3


def test_load_and_metrics_tell_the_same(caller: Caller, services: Services) -> None:
    session = caller.open(caller.memory())
    with gate_of(services.decoder.service) as gate:
        gate.shut()
        call = caller.start(session)
        eventually(lambda: services.decoder.service.engine.running == 1)
        load = caller.decoder.GetLoad(dec.DecoderServiceGetLoadRequest()).load
        assert (load.running, load.queued, load.held, load.capacity) == (1, 1, 1, 64)
        for name, value in {
            "running": load.running,
            "queued": load.queued,
            "sessions": load.held,
            "slots": load.capacity,
            "memory_bytes": load.used_bytes,
            "memory_budget_bytes": load.budget_bytes,
        }.items():
            assert services.decoder.metric(f"splitformer_decoder_{name}") == value, name
        gate.open()
        list(call)
    caller.close_session(session)


def value_of(text: str, name: str) -> float:
    found = [line for line in text.splitlines() if line.startswith(name + " ")]
    assert found, f"{name} is missing"
    return float(found[0].rpartition(" ")[2])


# --- logs


def test_logs_hold_request_ids_and_never_the_text(
    caller: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="splitformer")
    metadata = ((REQUEST_ID_KEY, "id-of-mine"),)
    source = enc.Source(text=f"Open the {MARKER} file.")
    caller.encoder.Encode(enc.EncodeRequest(source=source), metadata=metadata)
    prefix = dec.TargetPrefix(text=MARKER)
    session = caller.open(caller.memory(), target_prefix=prefix)
    generated = caller.generate(session, close_on_end=True)
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "SOURCE_TOO_LONG", "source.text", ANY):
        caller.memory(MARKER * 20)
    eventually(lambda: "SOURCE_TOO_LONG" in logged(caplog))
    lines = logged(caplog)
    assert MARKER not in lines
    assert generated.text not in lines
    assert '"id-of-mine"' in lines


def test_one_request_id_leads_from_the_opener_through_the_hand_off(
    servers: ServerThread, services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    decoder = servers.start_decoder(services.model, services.encoder, shared_memory=False)
    caller = Caller(services.encoder, decoder)
    caplog.set_level(logging.INFO, logger="splitformer")
    reference = caller.reference()
    header = dec.SessionHeader(reference=reference, target_language="de")
    opening = iter([dec.OpenSessionRequest(header=header)])
    opened = caller.decoder.OpenSession(opening, metadata=((REQUEST_ID_KEY, "id-of-the-opener"),))

    def methods() -> set[str]:
        fields = [getattr(record, "fields", {}) for record in caplog.records]
        return {f["method"] for f in fields if f.get("request_id") == "id-of-the-opener"}

    eventually(lambda: methods() == {"OpenSession", "FetchMemory", "ReleaseMemory"})
    caller.close_session(opened.session_id)
    caller.release(reference)
    caller.close()


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """All records as our formatter writes them."""
    lines = [JsonFormatter("test").format(record) for record in caplog.records]
    assert all(isinstance(json.loads(line), dict) for line in lines)
    return "\n".join(lines)
