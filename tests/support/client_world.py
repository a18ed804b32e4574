"""A client and fake servers for it to talk to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from splitformer.v1 import tensor_pb2
from splitformer_client import aio
from splitformer_client.aio import AsyncClient
from splitformer_client.memory import Memory
from tests.support.client_fakes import FakeDecoder, FakeEncoder, serve


@dataclass(frozen=True)
class World:
    """A client and the fakes it talks to."""

    encoder: FakeEncoder
    decoder: FakeDecoder
    client: AsyncClient
    address: str


@asynccontextmanager
async def new_world() -> AsyncIterator[World]:
    """Start both fakes on one server, and connect."""
    encoder, decoder = FakeEncoder(), FakeDecoder()
    server, address = await serve(encoder, decoder)
    async with aio.connect(address, address, timeout=10) as client:
        yield World(encoder, decoder, client, address)
    await server.stop(None)


def local_memory(rows: int = 4) -> Memory:
    """Return a memory of 16 bytes per row."""
    header = tensor_pb2.MemoryHeader(dtype=tensor_pb2.DATA_TYPE_F16, shape=(rows, 8))
    return Memory(header, bytes(range(16)) * rows)
