"""Closed-loop load: N streams that each send the next request when the last one is done."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from grpc import aio

from benchmarks.peers.ctranslate2_server import METHOD
from splitformer import wire
from splitformer.v1 import decoder_service_pb2 as dec, encoder_service_pb2 as enc
from splitformer.v1.decoder_service_pb2_grpc import DecoderServiceStub
from splitformer.v1.encoder_service_pb2_grpc import EncoderServiceStub

SOURCE_TOKENS, TARGET_TOKENS = 24, 32


class Contestant(Protocol):
    """A server that streams the tokens of one request."""

    def request(self, ids: list[int]) -> AsyncIterator[object]:
        """Send one request; yield once per token."""

    async def close(self) -> None:
        """Close the connections."""


class Splitformer:
    """Our two services: encode, then decode the memory in one call."""

    def __init__(self, encoder: str, decoder: str, language: str) -> None:
        self._channels = [aio.insecure_channel(encoder), aio.insecure_channel(decoder)]
        self._encoder = EncoderServiceStub(self._channels[0])
        self._decoder = DecoderServiceStub(self._channels[1])
        self._language = language
        self._options = dec.GenerationOptions(
            min_new_tokens=TARGET_TOKENS, max_new_tokens=TARGET_TOKENS
        )

    async def request(self, ids: list[int]) -> AsyncIterator[object]:
        """Yield once per token."""
        encoded = await self._encoder.Encode(
            enc.EncodeRequest(
                source=enc.Source(tokens=enc.TokenIds(ids=ids)), omit_source_tokens=True
            )
        )
        async for response in self._decoder.Decode(self._one_shot(encoded)):
            if response.HasField("tokens"):
                yield response

    def _one_shot(self, encoded: enc.EncodeResponse) -> Iterator[dec.DecodeRequest]:
        session = dec.SessionHeader(target_language=self._language)
        if encoded.HasField("reference"):
            session.reference.CopyFrom(encoded.reference)
        else:
            session.upload.CopyFrom(encoded.inline.header)
        yield dec.DecodeRequest(header=dec.DecodeHeader(session=session, options=self._options))
        if encoded.HasField("inline"):
            data = wire.tensor_bytes(encoded.inline.tensor)
            for chunk in wire.chunks_of(data, len(data)):
                yield dec.DecodeRequest(chunk=chunk)

    async def close(self) -> None:
        """Close the connections."""
        for channel in self._channels:
            await channel.close()


class ThinPeer:
    """CTranslate2 behind its thin server."""

    def __init__(self, address: str) -> None:
        self._channel = aio.insecure_channel(address)
        self._translate: Any = self._channel.unary_stream(METHOD)

    async def request(self, ids: list[int]) -> AsyncIterator[object]:
        """Yield once per token."""
        async for response in self._translate(np.array([TARGET_TOKENS, *ids], "<i4").tobytes()):
            yield response

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()


@dataclass(slots=True)
class Load:
    """What a slice of load gave; times in seconds."""

    seconds: float
    tokens: int = 0
    first: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)

    @property
    def tokens_per_second(self) -> float:
        """Target tokens per second, all streams together."""
        return self.tokens / self.seconds


async def closed_loop(
    contestant: Contestant, streams: int, seconds: float, vocabulary: int
) -> Load:
    """Keep `streams` requests in flight for `seconds`; tokens that come later do not count."""
    load = Load(seconds)
    deadline = time.perf_counter() + seconds

    async def stream(number: int) -> None:
        numbers = random.Random(number)
        while time.perf_counter() < deadline:
            ids = [numbers.randrange(4, vocabulary) for _ in range(SOURCE_TOKENS - 1)]
            await _one(contestant, [*ids, 1], load, deadline)

    await asyncio.gather(*(stream(number) for number in range(streams)))
    return load


async def _one(contestant: Contestant, ids: list[int], load: Load, deadline: float) -> None:
    last = time.perf_counter()
    first = True
    async for _ in contestant.request(ids):
        now = time.perf_counter()
        if now > deadline:
            continue
        load.tokens += 1
        (load.first if first else load.between).append(now - last)
        first, last = False, now
