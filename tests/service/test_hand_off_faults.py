"""A memory that comes damaged, or from the wrong place, is refused and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from decoder_service.service import DecoderService
from splitformer.v1 import encoder_service_pb2 as enc, tensor_pb2
from splitformer.v1.encoder_service_pb2_grpc import (
    EncoderServiceServicer,
    EncoderServiceStub,
    add_EncoderServiceServicer_to_server,
)
from tests.conftest import Services
from tests.support.rpc import Caller, eventually, refused
from tests.support.servers import Running, ServerThread

DATA_LOSS = grpc.StatusCode.DATA_LOSS
CHUNK_BYTES = 200
Parts = list[enc.FetchMemoryResponse]


def altered(parts: Parts) -> Iterator[enc.FetchMemoryResponse]:
    """Flip one bit of the second chunk."""
    data = bytearray(parts[2].chunk.data)
    data[-1] ^= 1
    parts[2].chunk.data = bytes(data)
    yield from parts


def truncated(parts: Parts) -> Iterator[enc.FetchMemoryResponse]:
    """Leave out the last chunk."""
    yield from [*parts[:-2], parts[-1]]


def cut(parts: Parts) -> Iterator[enc.FetchMemoryResponse]:
    """End after the header."""
    yield parts[0]


def empty(parts: Parts) -> Iterator[enc.FetchMemoryResponse]:
    """Send nothing at all."""
    return iter(())


def swapped(parts: Parts) -> Iterator[enc.FetchMemoryResponse]:
    """Send the second chunk first."""
    yield from [parts[0], parts[2], parts[1], *parts[3:]]


def drawn_out(parts: Parts) -> Iterator[enc.FetchMemoryResponse]:
    """Send the first chunk once more after the last."""
    again = enc.FetchMemoryResponse(chunk=parts[1].chunk)
    again.chunk.offset = parts[-1].trailer.total_bytes
    yield from [*parts[:-1], again, parts[-1]]


def dying(parts: Parts) -> Iterator[enc.FetchMemoryResponse]:
    """Break off in the middle."""
    yield from parts[:2]
    raise RuntimeError("the encoder died")


class Between(EncoderServiceServicer):
    """Stands between decoder and encoder, and damages what it passes on."""

    def __init__(self, encoder: str) -> None:
        self._stub = EncoderServiceStub(grpc.insecure_channel(encoder))
        self.damage: Callable[[Parts], Iterator[enc.FetchMemoryResponse]] = iter

    def FetchMemory(self, request: enc.FetchMemoryRequest, context: Any) -> Any:
        request.chunk_bytes, request.lease_ms = CHUNK_BYTES, 500  # a lease nobody hears of ends
        parts = list(self._stub.FetchMemory(request))
        parts[0].header.ClearField("shared")
        assert len(parts) > 4
        return self.damage(parts)

    def ReleaseMemory(self, request: enc.ReleaseMemoryRequest, context: Any) -> Any:
        return self._stub.ReleaseMemory(request)


@pytest.fixture
def between(services: Services) -> Iterator[tuple[Between, str]]:
    servicer = Between(services.encoder.address)
    server = grpc.server(ThreadPoolExecutor(2))
    add_EncoderServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"127.0.0.1:{port}"
    server.stop(None)


@pytest.fixture
def decoder(
    servers: ServerThread, services: Services, between: tuple[Between, str]
) -> Running[DecoderService]:
    return servers.start_decoder(services.model, encoders=(between[1],))


@pytest.mark.parametrize(
    ("damage", "code", "reason", "field"),
    [
        (altered, DATA_LOSS, "CORRUPT_CHUNK", None),
        (truncated, DATA_LOSS, "MEMORY_TRUNCATED", None),
        (cut, DATA_LOSS, "MEMORY_TRUNCATED", None),
        (empty, DATA_LOSS, "MEMORY_TRUNCATED", None),
        (swapped, grpc.StatusCode.INVALID_ARGUMENT, "CHUNK_OUT_OF_ORDER", "chunk.offset"),
        (drawn_out, grpc.StatusCode.INVALID_ARGUMENT, "CHUNK_TOO_LONG", "chunk.data"),
    ],
)
def test_a_damaged_memory_is_refused_and_the_next_attempt_succeeds(
    services: Services,
    between: tuple[Between, str],
    decoder: Running[DecoderService],
    damage: Callable[[Parts], Iterator[enc.FetchMemoryResponse]],
    code: grpc.StatusCode,
    reason: str,
    field: str | None,
) -> None:
    servicer, endpoint = between
    caller = Caller(services.encoder, decoder)
    reference = caller.reference()
    reference.endpoint = endpoint
    servicer.damage = damage
    with pytest.raises(grpc.RpcError) as caught:
        caller.open_reference(reference)
    error: Any = caught.value
    assert error.code() is code, error
    assert reason in str(error.trailing_metadata())
    if field is not None:
        assert field in error.details()
    eventually(lambda: services.encoder.service.store.leases == 1)
    assert (decoder.service.budget.used, len(decoder.service.sessions)) == (0, 0)
    servicer.damage = iter
    caller.close_session(caller.open_reference(reference))
    caller.release(reference)
    caller.close()


def test_an_encoder_that_breaks_off_is_an_error_and_strands_nothing(
    services: Services, between: tuple[Between, str], decoder: Running[DecoderService]
) -> None:
    servicer, endpoint = between
    caller = Caller(services.encoder, decoder)
    reference = caller.reference()
    reference.endpoint = endpoint
    servicer.damage = dying
    with pytest.raises(grpc.RpcError):
        caller.open_reference(reference)
    eventually(lambda: services.encoder.service.store.leases == 1)
    assert (decoder.service.budget.used, len(decoder.service.sessions)) == (0, 0)
    caller.release(reference)
    caller.close()


def test_a_memory_of_another_encoder_is_not_found(
    servers: ServerThread, services: Services
) -> None:
    other = servers.start_encoder(services.model)
    decoder = servers.start_decoder(services.model, encoders=("127.0.0.1:*",))
    caller = Caller(services.encoder, decoder)
    reference = caller.reference()
    foreign = tensor_pb2.MemoryReference()
    foreign.CopyFrom(reference)
    foreign.endpoint = other.address
    with refused(grpc.StatusCode.NOT_FOUND, "MEMORY_NOT_FOUND"):
        caller.open_reference(foreign)
    assert other.service.store.leases == 0
    assert decoder.service.budget.used == 0
    caller.close_session(caller.open_reference(reference))
    caller.release(reference)
    caller.close()
