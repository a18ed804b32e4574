"""What the encoder service refuses, with which status, reason and violation."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import ANY

import grpc
import pytest

from splitformer.v1 import encoder_service_pb2 as enc
from tests.conftest import Services
from tests.support.checkpoints import MAX_POSITIONS
from tests.support.rpc import TEXT, Caller, eventually, refused
from tests.support.servers import ServerThread

INVALID = grpc.StatusCode.INVALID_ARGUMENT
VOCABULARY = 376


def encode(caller: Caller, **source: object) -> enc.EncodeResponse:
    request = enc.EncodeRequest(source=enc.Source(**source))  # type: ignore[arg-type]
    return caller.encoder.Encode(request)


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_empty_text_is_refused(caller: Caller, text: str) -> None:
    with refused(INVALID, "EMPTY_SOURCE", "source.text", text):
        encode(caller, text=text)
    with refused(INVALID, "EMPTY_SOURCE", "source.text", text):
        list(caller.encoder.StreamEncode(enc.StreamEncodeRequest(source=enc.Source(text=text))))


def test_no_source_at_all_is_refused(caller: Caller) -> None:
    with refused(INVALID, "EMPTY_SOURCE", "source", None):
        caller.encoder.Encode(enc.EncodeRequest())
    with refused(INVALID, "EMPTY_SOURCE", "source.tokens.ids", []):
        encode(caller, tokens=enc.TokenIds())


def test_text_longer_than_the_models_positions_is_refused(caller: Caller) -> None:
    with refused(INVALID, "SOURCE_TOO_LONG", "source.text", ANY) as refusal:
        encode(caller, text="fox " * MAX_POSITIONS)
    length = refusal.error.metadata["length"]
    assert int(length) > MAX_POSITIONS
    assert refusal.error.metadata == {"limit": str(MAX_POSITIONS), "length": length}
    assert refusal.error.violations[0].description.endswith(f"got {length}")


def test_a_huge_text_is_refused_without_being_tokenised(caller: Caller) -> None:
    with refused(INVALID, "SOURCE_TOO_LONG", "source.text", 8_000_000) as refusal:
        encode(caller, text="fox jump" * 1_000_000)
    assert refusal.error.metadata == {"limit": str(MAX_POSITIONS), "characters": "8000000"}


def test_tokens_up_to_the_models_positions_are_taken(caller: Caller) -> None:
    full = encode(caller, tokens=enc.TokenIds(ids=[9] * MAX_POSITIONS))
    assert full.inline.header.shape == [MAX_POSITIONS, 32]
    over = MAX_POSITIONS + 1
    with refused(INVALID, "SOURCE_TOO_LONG", "source.tokens.ids", over) as refusal:
        encode(caller, tokens=enc.TokenIds(ids=[9] * over))
    assert refusal.error.metadata == {"limit": str(MAX_POSITIONS), "length": str(over)}


@pytest.mark.parametrize("token", [-1, VOCABULARY, 2**31 - 1])
def test_a_token_id_out_of_range_is_refused(caller: Caller, token: int) -> None:
    with refused(INVALID, "TOKEN_OUT_OF_RANGE", "source.tokens.ids[1]", token):
        encode(caller, tokens=enc.TokenIds(ids=[5, token, 1]))


def test_languages_that_do_not_fit_the_model_are_refused(caller: Caller) -> None:
    with refused(INVALID, "UNKNOWN_LANGUAGE", "source.language", "xx"):
        encode(caller, text=TEXT, language="xx")
    with refused(INVALID, "LANGUAGE_ON_DECODER", "source.target_language", "de"):
        encode(caller, text=TEXT, target_language="de")
    assert encode(caller, text=TEXT, language="en").HasField("inline")


def test_an_unknown_model_is_not_found(caller: Caller) -> None:
    with refused(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"):
        caller.encoder.Encode(enc.EncodeRequest(model="nope", source=enc.Source(text=TEXT)))
    with refused(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"):
        caller.encoder.GetModelInfo(enc.EncoderServiceGetModelInfoRequest(model="nope"))


def test_long_values_do_not_burst_the_trailers(caller: Caller) -> None:
    with refused(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND") as refusal:
        caller.encoder.Encode(enc.EncodeRequest(model="ま" * 30_000, source=enc.Source(text="a")))
    assert len(refusal.error.message) < 300
    with refused(grpc.StatusCode.NOT_FOUND, "MEMORY_NOT_FOUND"):
        list(caller.encoder.FetchMemory(enc.FetchMemoryRequest(memory_id="x" * 50_000)))


@pytest.mark.parametrize("lease_ms", [-1, 600_001, 2**62])
def test_a_bad_lease_length_is_refused(caller: Caller, lease_ms: int) -> None:
    with refused(INVALID, "BAD_LEASE", "lease_ms", lease_ms):
        caller.reference(lease_ms=lease_ms)
    with refused(INVALID, "BAD_LEASE", "lease_ms", lease_ms):
        list(caller.encoder.FetchMemory(enc.FetchMemoryRequest(lease_ms=lease_ms)))
    with refused(INVALID, "BAD_LEASE", "lease_ms", lease_ms):
        caller.encoder.RenewLease(enc.RenewLeaseRequest(lease_ms=lease_ms))


@pytest.mark.parametrize("chunk_bytes", [-1, 32 * 2**20 + 1])
def test_a_bad_chunk_size_is_refused(caller: Caller, chunk_bytes: int) -> None:
    source = enc.Source(text=TEXT)
    with refused(INVALID, "BAD_CHUNK_SIZE", "chunk_bytes", chunk_bytes):
        request = enc.StreamEncodeRequest(source=source, chunk_bytes=chunk_bytes)
        list(caller.encoder.StreamEncode(request))
    with refused(INVALID, "BAD_CHUNK_SIZE", "chunk_bytes", chunk_bytes):
        list(caller.encoder.FetchMemory(enc.FetchMemoryRequest(chunk_bytes=chunk_bytes)))


def test_an_unknown_delivery_is_refused(caller: Caller) -> None:
    with refused(INVALID, "BAD_DELIVERY", "delivery", 99):
        request = enc.EncodeRequest(source=enc.Source(text=TEXT))
        caller.encoder.Encode(enc.EncodeRequest.FromString(request.SerializeToString() + b"\x18c"))


def test_a_memory_over_the_inline_limit_is_not_sent_inline(
    servers: ServerThread, services: Services
) -> None:
    running = servers.start_encoder(services.model, inline_bytes=100)
    caller = Caller(running, services.decoder)
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "MEMORY_TOO_LARGE"):
        caller.memory()
    response = caller.encoder.Encode(enc.EncodeRequest(source=enc.Source(text=TEXT)))
    assert response.WhichOneof("memory") == "reference"
    caller.release(response.reference)
    assert caller.footprint()["encoder bytes"] == 0
    caller.close()


def test_over_budget_is_resource_exhausted_until_something_is_released(
    servers: ServerThread, services: Services
) -> None:
    size = len(Caller(services.encoder, None).memory()[1])
    running = servers.start_encoder(services.model, memory_bytes=2 * size, drain_seconds=0)
    caller = Caller(running, None)
    held = [caller.reference(), caller.reference()]
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVER_BUDGET") as refusal:
        caller.reference()
    assert 0 < (refusal.error.retry_after or 0) <= 30
    caller.release(held.pop())
    held.append(caller.reference())
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVER_BUDGET") as refusal:
        caller.reference("Save all changes before closing the window and the file.")
    assert refusal.error.retry_after is None, "it would never fit"
    for reference in held:
        caller.release(reference)
    assert set(caller.footprint().values()) == {0}
    caller.close()


def test_the_budget_is_asked_before_anything_is_encoded(
    servers: ServerThread, services: Services
) -> None:
    running = servers.start_encoder(services.model, memory_bytes=100)
    caller = Caller(running, None)
    for delivery in (enc.MEMORY_DELIVERY_INLINE, enc.MEMORY_DELIVERY_REFERENCE):
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVER_BUDGET") as refusal:
            request = enc.EncodeRequest(source=enc.Source(text=TEXT), delivery=delivery)
            caller.encoder.Encode(request)
        assert refusal.error.retry_after is None, "it would never fit"
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVER_BUDGET"):
        list(caller.encoder.StreamEncode(enc.StreamEncodeRequest(source=enc.Source(text=TEXT))))
    assert running.metric("splitformer_encoder_sources_total") == 0
    assert running.service.store.reserved_bytes == 0
    caller.close()


def test_a_full_queue_is_resource_exhausted(servers: ServerThread, services: Services) -> None:
    running = servers.start_encoder(services.model)
    caller = Caller(running, None)
    engine = running.service._engine
    usual = engine._limits
    for limits in (replace(usual, queue=0), replace(usual, queue_seconds=-1.0)):
        engine._limits = limits
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL") as refusal:
            caller.memory()
        assert refusal.error.retry_after
    engine._limits = usual
    assert caller.memory()[1]
    eventually(lambda: set(caller.footprint().values()) == {0})
    caller.close()
