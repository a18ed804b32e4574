"""Load over gRPC: N streams in a closed loop, or requests that arrive when they please."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from grpc import aio

from benchmarks.peers import ctranslate2_server, one_process
from splitformer import wire
from splitformer.v1 import decoder_service_pb2 as dec, encoder_service_pb2 as enc
from splitformer.v1.decoder_service_pb2_grpc import DecoderServiceStub
from splitformer.v1.encoder_service_pb2_grpc import EncoderServiceStub

SOURCE_TOKENS, TARGET_TOKENS = 24, 32
NATURAL = 0
"""Instead of a number of tokens: until the model ends the target."""


class Contestant(Protocol):
    """A server that streams the tokens of one request.

    Attributes:
        patient: Requests that run at the end of a slice of load may end; otherwise they are
            cancelled.
    """

    @property
    def patient(self) -> bool: ...  # noqa: D102

    def request(self, ids: Sequence[int], count: int) -> AsyncIterator[object]:
        """Send one request for `count` tokens (or NATURAL); yield once per token."""

    async def close(self) -> None:
        """Close the connections."""


class Splitformer:
    """Our two services: encode, then decode the memory in one call."""

    patient = True

    def __init__(self, encoder: str, decoder: str, language: str) -> None:
        self._channels = [aio.insecure_channel(encoder), aio.insecure_channel(decoder)]
        self._encoder = EncoderServiceStub(self._channels[0])
        self._decoder = DecoderServiceStub(self._channels[1])
        self._language = language

    async def request(self, ids: Sequence[int], count: int) -> AsyncIterator[object]:
        """Yield once per token."""
        encoded = await self._encoder.Encode(
            enc.EncodeRequest(
                source=enc.Source(tokens=enc.TokenIds(ids=ids)), omit_source_tokens=True
            )
        )
        async for response in self._decoder.Decode(self._one_shot(encoded, count)):
            if response.HasField("tokens"):
                yield response

    def _one_shot(self, encoded: enc.EncodeResponse, count: int) -> Iterator[dec.DecodeRequest]:
        session = dec.SessionHeader(target_language=self._language)
        if encoded.HasField("reference"):
            session.reference.CopyFrom(encoded.reference)
        else:
            session.upload.CopyFrom(encoded.inline.header)
        header = dec.DecodeHeader(session=session, options=options_for(count))
        yield dec.DecodeRequest(header=header)
        if encoded.HasField("inline"):
            data = wire.tensor_bytes(encoded.inline.tensor)
            for chunk in wire.chunks_of(data, len(data)):
                yield dec.DecodeRequest(chunk=chunk)

    async def close(self) -> None:
        """Close the connections."""
        for channel in self._channels:
            await channel.close()


def options_for(count: int) -> dec.GenerationOptions:
    """Ask for exactly `count` tokens, or for as many as the model wants."""
    if count == NATURAL:
        return dec.GenerationOptions()
    return dec.GenerationOptions(min_new_tokens=count, max_new_tokens=count)


class Thin:
    """A server with one method: [count, ids…] up, a message per token down."""

    def __init__(self, address: str, method: str, patient: bool) -> None:
        self.patient = patient
        self._channel = aio.insecure_channel(address)
        self._translate: Any = self._channel.unary_stream(method)

    async def request(self, ids: Sequence[int], count: int) -> AsyncIterator[object]:
        """Yield once per token."""
        async for response in self._translate(np.array([count, *ids], "<i4").tobytes()):
            if response:
                yield response

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()


def direct_peer(address: str) -> Thin:
    """CTranslate2 behind its thin server, each request by itself."""
    return Thin(address, ctranslate2_server.METHOD, False)


def batching_peer(address: str) -> Thin:
    """CTranslate2 behind its thin server, with request batching."""
    return Thin(address, ctranslate2_server.METHOD, True)


def ours_in_one_process(address: str) -> Thin:
    """Our engines in one process, behind one RPC."""
    return Thin(address, one_process.METHOD, True)


@dataclass(slots=True)
class Load:
    """What a slice of load gave; times in seconds.

    Attributes:
        seconds: How long it lasted.
        tokens: That came in it; those of a request that ended later, by its share in it.
        all_tokens: Those of all requests, to their ends.
        first: From each request to its first token.
        between: From each token to the next one.
        whole: From each request to its last token.
        unfinished: Requests that were given up.
    """

    seconds: float
    tokens: float = 0
    all_tokens: int = 0
    first: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    unfinished: int = 0

    @property
    def tokens_per_second(self) -> float:
        """Target tokens per second, all streams together."""
        return self.tokens / self.seconds


async def closed_loop(
    contestant: Contestant, streams: int, seconds: float, vocabulary: int
) -> Load:
    """Keep `streams` requests of fixed lengths in flight for `seconds`.

    The tokens of a request that ends later count by the share of its time that lay before: tokens
    that come in bursts would otherwise be won or lost by chance. Where requests are cancelled at
    the end, tokens count as they come.
    """
    load = Load(seconds)
    deadline = time.perf_counter() + seconds

    async def stream(number: int) -> None:
        numbers = random.Random(number)
        while time.perf_counter() < deadline:
            ids = [numbers.randrange(8, vocabulary) for _ in range(SOURCE_TOKENS - 1)]
            await _one(contestant, [*ids, 1], TARGET_TOKENS, load, deadline)

    tasks = [asyncio.create_task(stream(number)) for number in range(streams)]
    if not contestant.patient:
        await asyncio.wait(tasks, timeout=seconds)
        for task in tasks:
            task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=not contestant.patient):
        if isinstance(result, Exception):
            raise result
    return load


async def _one(
    contestant: Contestant, ids: list[int], count: int, load: Load, deadline: float
) -> None:
    began = last = time.perf_counter()
    come = 0
    try:
        async for _ in contestant.request(ids, count):
            now = time.perf_counter()
            (load.between if come else load.first).append(now - last)
            come, last = come + 1, now
    finally:
        load.tokens += come * min(1.0, (deadline - began) / max(last - began, 1e-9))
        load.all_tokens += come
    load.whole.append(last - began)


async def open_loop(
    contestant: Contestant,
    rate: float,
    seconds: float,
    sources: Sequence[Sequence[int]],
    patience: float,
) -> Load:
    """Send requests at random times, `rate` a second on average, whatever has become of others.

    Arrivals are a Poisson process, the same for every contestant. What is unfinished `patience`
    seconds after the last arrival is given up and counted.
    """
    numbers, load, tasks = random.Random(0), Load(seconds), []
    began = time.perf_counter()
    arrival = numbers.expovariate(rate)
    while arrival < seconds:
        await asyncio.sleep(max(0.0, began + arrival - time.perf_counter()))
        ids = list(numbers.choice(sources))
        tasks.append(asyncio.create_task(_arrived(contestant, ids, load, began + arrival)))
        arrival += numbers.expovariate(rate)
    if tasks:
        _, unfinished = await asyncio.wait(tasks, timeout=patience)
        load.unfinished = len(unfinished)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return load


async def _arrived(contestant: Contestant, ids: list[int], load: Load, arrival: float) -> None:
    """Run one request; its times count from when it arrived, not from when it was sent."""
    last, come = arrival, 0
    async for _ in contestant.request(ids, NATURAL):
        now = time.perf_counter()
        (load.between if come else load.first).append(now - last)
        come, last = come + 1, now
    load.tokens += come
    load.whole.append(last - arrival)
