"""An encoder that has moved to another address is found there by its name."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from decoder_service.channels import EncoderChannels

A, CLASS_IN, TTL_SECONDS = 1, 1, 30


class NameServer:
    """Tells whoever asks for a name one address; that may change."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                asked, caller = self._socket.recvfrom(512)
            except OSError:
                return
            self._socket.sendto(self._answer(asked), caller)

    def _answer(self, asked: bytes) -> bytes:
        end = asked.index(b"\0", 12) + 5  # of the question: the name, its type and its class
        (kind,) = struct.unpack("!H", asked[end - 4 : end - 2])
        known = kind == A  # nothing of other types, such as IPv6
        counts = struct.pack("!HHHHH", 0x8180, 1, known, 0, 0)
        record = struct.pack("!HHHIH", 0xC00C, A, CLASS_IN, TTL_SECONDS, 4)
        address = record + socket.inet_aton(self.address) if known else b""
        return asked[:2] + counts + asked[12:end] + address

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def names() -> Iterator[NameServer]:
    server = NameServer("127.0.0.1")
    yield server
    server.close()


@asynccontextmanager
async def encoder(address: str) -> AsyncIterator[int]:
    """Something that answers at an address; yields its port."""
    server = aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@pytest.fixture
async def channels() -> AsyncIterator[EncoderChannels]:
    channels = EncoderChannels(None)
    yield channels
    await channels.close()


async def test_an_encoder_with_a_new_address_is_found_soon(
    names: NameServer, channels: EncoderChannels
) -> None:
    async with encoder("127.0.0.1:0") as port:
        channel = channels.to(f"dns://127.0.0.1:{names.port}/encoder.test:{port}")
        await answered(channel, 10)
    names.address = "127.0.0.2"
    async with encoder(f"127.0.0.2:{port}"):
        # It is asked for again after a second; by itself, gRPC would wait for thirty.
        await answered(channel, 15)


async def answered(channel: aio.Channel, seconds: float) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    check = stub.Check  # type: ignore[attr-defined]
    await check(health_pb2.HealthCheckRequest(), timeout=seconds, wait_for_ready=True)
