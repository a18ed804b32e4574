"""Memories on their way out of the encoder: inline, streamed, kept under leases, fetched."""

from __future__ import annotations

import threading
from typing import Any

import grpc
import pytest

from splitformer import wire
from splitformer.v1 import encoder_service_pb2 as enc, tensor_pb2
from tests.conftest import Services
from tests.support.checkpoints import SENTENCES
from tests.support.rpc import TEXT, Caller, eventually, refused
from tests.support.servers import ServerThread

NOT_FOUND = grpc.StatusCode.NOT_FOUND


def assembled(parts: list[enc.StreamEncodeResponse]) -> bytes:
    header, trailer = parts[0].header, parts[-1].trailer
    assembler = wire.ChunkAssembler(wire.packed_bytes(header.dtype, header.shape))
    for part in parts[1:-1]:
        assembler.add(part.chunk)
    assert trailer.chunks == len(parts) - 2
    data = bytes(assembler.finish())
    assert trailer.total_bytes == len(data)
    return data


def fetch(caller: Caller, memory_id: str, **fields: Any) -> list[enc.FetchMemoryResponse]:
    return list(caller.encoder.FetchMemory(enc.FetchMemoryRequest(memory_id=memory_id, **fields)))


def lease_of(parts: list[enc.FetchMemoryResponse], memory_id: str) -> tensor_pb2.MemoryReference:
    return tensor_pb2.MemoryReference(memory_id=memory_id, lease=parts[0].header.lease)


@pytest.mark.parametrize("chunk_bytes", [0, 1, 100, 10_000])
def test_a_streamed_memory_is_the_inline_one(caller: Caller, chunk_bytes: int) -> None:
    header, data = caller.memory()
    request = enc.StreamEncodeRequest(source=enc.Source(text=TEXT), chunk_bytes=chunk_bytes)
    parts = list(caller.encoder.StreamEncode(request))
    assert parts[0].header == header
    assert assembled(parts) == data
    assert parts[-1].trailer.timings.encode_seconds > 0


def test_the_header_tells_where_each_row_came_from(caller: Caller) -> None:
    text = "Où est le fichier ?"
    header, _ = caller.memory(text)
    raw = text.encode()
    spans = [(token.begin, token.end) for token in header.source_tokens]
    assert header.shape == [len(spans), 32]
    assert b"".join(raw[begin:end] for begin, end in spans) == raw
    assert spans[-1] == (len(raw), len(raw)), "the end token covers nothing"
    request = enc.EncodeRequest(source=enc.Source(text=text), omit_source_tokens=True)
    left_out = caller.encoder.Encode(request).inline.header
    assert header.source_text == text
    assert (left_out.source_text, len(left_out.source_tokens)) == ("", 0)


def test_tokens_given_are_taken_as_they_are(caller: Caller) -> None:
    header, data = caller.memory()
    ids = [token.id for token in header.source_tokens]
    request = enc.EncodeRequest(source=enc.Source(tokens=enc.TokenIds(ids=ids)))
    assert wire.tensor_bytes(caller.encoder.Encode(request).inline.tensor) == data


@pytest.mark.parametrize("dtype", sorted(wire.DTYPE_NAMES))
def test_every_wire_type_arrives(servers: ServerThread, services: Services, dtype: str) -> None:
    running = servers.start_encoder(services.model, memory_dtype=dtype)
    decoder = servers.start_decoder(services.model, running, memory_dtype=dtype)
    caller = Caller(running, decoder)
    header, data = caller.memory()
    assert header.dtype == wire.DTYPE_NAMES[dtype]
    session = caller.open((header, data))
    reference = caller.reference()
    fetched = caller.open_reference(reference)
    caller.release(reference)
    uploaded, pulled = (caller.generate(s, close_on_end=True) for s in (session, fetched))
    assert uploaded.ids == pulled.ids
    caller.close()


def test_a_batch_gives_every_source_its_own_memory(caller: Caller) -> None:
    alone = [caller.memory(text)[1] for text in SENTENCES]
    together: dict[int, bytes] = {}

    def encode(index: int) -> None:
        together[index] = caller.memory(SENTENCES[index])[1]

    threads = [threading.Thread(target=encode, args=(i,)) for i in range(len(SENTENCES))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, data in enumerate(alone):
        shape = (len(data) // 64, 32)
        one = wire.unpack(data, tensor_pb2.DATA_TYPE_F16, shape)
        other = wire.unpack(together[index], tensor_pb2.DATA_TYPE_F16, shape)
        assert abs(one - other).max() < 2e-2, "one f16 step at most"


def test_a_kept_memory_can_be_fetched_until_its_last_lease_is_released(caller: Caller) -> None:
    reference = caller.reference()
    _, data = caller.memory()
    parts = fetch(caller, reference.memory_id, chunk_bytes=100)
    assert b"".join(part.chunk.data for part in parts[1:-1]) == data
    assert parts[0].header.header == reference.header
    assert caller.release(reference).remaining_leases == 1
    again = fetch(caller, reference.memory_id)
    assert caller.release(lease_of(parts, reference.memory_id)).remaining_leases == 1
    assert caller.release(lease_of(again, reference.memory_id)).remaining_leases == 0
    with refused(NOT_FOUND, "MEMORY_NOT_FOUND"):
        fetch(caller, reference.memory_id)


def test_a_released_lease_cannot_be_used_again(caller: Caller) -> None:
    reference = caller.reference()
    parts = fetch(caller, reference.memory_id)
    caller.release(reference)
    memory, lease = reference.memory_id, reference.lease.lease_id
    with refused(NOT_FOUND, "LEASE_NOT_FOUND"):
        caller.encoder.ReleaseMemory(enc.ReleaseMemoryRequest(memory_id=memory, lease_id=lease))
    with refused(NOT_FOUND, "LEASE_NOT_FOUND"):
        caller.encoder.RenewLease(enc.RenewLeaseRequest(memory_id=memory, lease_id=lease))
    caller.release(lease_of(parts, reference.memory_id))


def test_an_expired_memory_is_gone_and_cannot_be_renewed(caller: Caller) -> None:
    before = caller.footprint()
    reference = caller.reference(lease_ms=1)
    eventually(lambda: caller.footprint() == before)
    memory, lease = reference.memory_id, reference.lease.lease_id
    with refused(NOT_FOUND, "MEMORY_NOT_FOUND"):
        fetch(caller, reference.memory_id)
    with refused(NOT_FOUND, "MEMORY_NOT_FOUND"):
        caller.encoder.RenewLease(enc.RenewLeaseRequest(memory_id=memory, lease_id=lease))
    with refused(NOT_FOUND, "MEMORY_NOT_FOUND"):
        caller.encoder.ReleaseMemory(enc.ReleaseMemoryRequest(memory_id=memory, lease_id=lease))


def test_a_renewed_lease_lasts_from_now(caller: Caller) -> None:
    reference = caller.reference(lease_ms=60_000)
    assert reference.lease.remaining_ms == 60_000
    request = enc.RenewLeaseRequest(
        memory_id=reference.memory_id, lease_id=reference.lease.lease_id, lease_ms=1
    )
    lease = caller.encoder.RenewLease(request).lease
    assert (lease.lease_id, lease.remaining_ms) == (reference.lease.lease_id, 1)
    eventually(lambda: caller.footprint()["leases"] == 0)


def test_a_fetch_that_is_cancelled_strands_nothing(caller: Caller) -> None:
    reference = caller.reference()
    request = enc.FetchMemoryRequest(memory_id=reference.memory_id, chunk_bytes=1, lease_ms=1)
    call = caller.encoder.FetchMemory(request)
    assert next(call).WhichOneof("part") == "header"
    call.cancel()
    eventually(lambda: caller.footprint()["leases"] == 1)
    caller.release(reference)


def test_model_info_and_load_say_what_is_so(caller: Caller, services: Services) -> None:
    model = caller.encoder.GetModelInfo(enc.EncoderServiceGetModelInfoRequest()).model
    other = caller.encoder.GetModelInfo(enc.EncoderServiceGetModelInfoRequest(model=model.name))
    assert other.model == model
    assert (model.name, model.layers, model.d_model) == ("tiny-0", 2, 32)
    assert model.memory_kind == tensor_pb2.MEMORY_KIND_SEQUENCE
    assert model.fingerprint == caller.memory()[0].fingerprint
    reference = caller.reference()
    load = caller.encoder.GetLoad(enc.EncoderServiceGetLoadRequest()).load
    assert load.used_bytes == services.encoder.service.store.used_bytes > 0
    assert (load.queued, load.budget_bytes, load.draining) == (0, 2**30, False)
    caller.release(reference)
