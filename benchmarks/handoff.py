"""`handoff`: a memory's way from the encoder's process to a reader in another one.

A memory of 1500 x 512 in f16 is pulled as the decoder does it: in chunks over loopback, and mapped
from shared memory. Every time ends with one full read of the bytes. For shared memory the call that
asks for the file is not counted in `shm_mb_s`, and is in `shm_whole_mb_s`.

Then `OpenSession` by reference on a 24-token sentence, one by one and under 16 callers: by either
path, on a model that takes no time; and in the Marian-base shape, with two services and with both
in one process, where the memory stays where it is. `sentence_ms` is the difference of these two.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from grpc import aio

from benchmarks import shapes
from benchmarks.load import SOURCE_TOKENS
from benchmarks.measuring import Sample
from benchmarks.report import Report
from benchmarks.servers import our_services, started
from decoder_service.allow_list import AllowList
from decoder_service.channels import EncoderChannels
from decoder_service.hand_off import MemoryPuller
from decoder_service.sharing import SharedMemories
from splitformer import wire
from splitformer.serving.local import LocalServices
from splitformer.v1 import decoder_service_pb2 as dec, encoder_service_pb2 as enc, tensor_pb2
from splitformer.v1.decoder_service_pb2_grpc import DecoderServiceStub
from splitformer.v1.encoder_service_pb2_grpc import EncoderServiceStub

if TYPE_CHECKING:
    from splitformer.v1.decoder_service_pb2_grpc import DecoderServiceAsyncStub
    from splitformer.v1.encoder_service_pb2_grpc import EncoderServiceAsyncStub

    Stubs: TypeAlias = tuple[EncoderServiceAsyncStub, DecoderServiceAsyncStub]

ROWS = 1500
LONG = "long"
"""A shape with room for that many rows, whose encoder takes no time."""

SPLIT, WHOLE = "two_services", "one_process"
CALLERS = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure: pulls by either path, openings one by one, openings of each caller."""

    pulls: int
    openings: int
    crowd: int


QUICK = Plan(pulls=60, openings=60, crowd=6)
FULL = Plan(pulls=400, openings=400, crowd=40)


def run(report: Report, cache: Path, quick: bool) -> None:
    """Measure and report `handoff.*`."""
    plan = QUICK if quick else FULL
    folder = str(shapes.checkpoint_folder(LONG, cache))
    with (
        our_services(folder, cache, 1) as shared,
        our_services(folder, cache, 1, "--shared-memory", "false") as fetched,
    ):
        asyncio.run(_bytes(report, shared.encoder, plan))
        ways = {"shared": _ends(shared), "chunks": _ends(fetched)}
        asyncio.run(_openings(report, "handoff.paths", ways, plan))
    folder = str(shapes.checkpoint_folder("marian-base", cache))
    command = ["benchmarks.peers.one_process", folder, "--language", shapes.LANGUAGE]
    with (
        started({"whole": command}) as servers,
        our_services(folder, cache, 1) as services,
    ):
        whole = servers["whole"].address
        ways = {SPLIT: _ends(services), WHOLE: (whole, whole)}
        middle = asyncio.run(_openings(report, "handoff", ways, plan))
    report.figure("handoff.sentence_ms", middle[SPLIT] - middle[WHOLE])


def _ends(services: LocalServices) -> tuple[str, str]:
    return services.encoder, services.decoder


# --- bytes ----------------------------------------------------------------------------------------


async def _bytes(report: Report, encoder: str, plan: Plan) -> None:
    """Pull one memory over and over, by both paths in turn."""
    async with aio.insecure_channel(encoder) as channel:
        reference = await _encode(EncoderServiceStub(channel), ROWS, lease_seconds=300)
    seconds: dict[str, list[float]] = {"reference": [], "shm": [], "shm_whole": []}
    shared = SharedMemories(True, lambda why: None)
    async with _puller(shared) as mapping, _puller(SharedMemories(False, print)) as fetching:
        await mapping.pull(reference, _any)  # learns the socket
        for _ in range(plan.pulls):
            seconds["reference"].append(await _timed(lambda: fetching.pull(reference, _any)))
            seconds["shm_whole"].append(await _timed(lambda: mapping.pull(reference, _any)))
            seconds["shm"].append(await _mapped(shared, reference))
    size = wire.packed_bytes(reference.header.dtype, reference.header.shape)
    for name, times in seconds.items():
        report.figure(f"handoff.{name}_mb_s", size / float(np.median(times)) / 1e6)
    report.detail("handoff.bytes", {name: Sample.of(each) for name, each in seconds.items()})


@asynccontextmanager
async def _puller(shared: SharedMemories) -> AsyncIterator[MemoryPuller]:
    channels = EncoderChannels(None)
    puller = MemoryPuller(AllowList(("127.0.0.1:*",)), channels, 10.0, shared, lambda path: None)
    yield puller
    await puller.close()


def _any(header: tensor_pb2.MemoryHeader) -> None:
    """Take any memory."""


def _read(data: wire.Buffer) -> int:
    """Look at every byte."""
    return int(np.frombuffer(data, np.uint64).sum())


async def _timed(
    pull: Callable[[], Awaitable[tuple[tensor_pb2.MemoryHeader, wire.Buffer]]],
) -> float:
    began = time.perf_counter()
    _, data = await pull()
    _read(data)
    return time.perf_counter() - began


async def _mapped(shared: SharedMemories, reference: tensor_pb2.MemoryReference) -> float:
    """Map and read what has been asked for already."""
    packet, fd = await shared._line(reference.endpoint).ask(reference.memory_id)
    assert fd is not None
    began = time.perf_counter()
    found = shared._mapped(reference.endpoint, packet, fd, _any)
    assert found is not None
    _read(found[1])
    seconds = time.perf_counter() - began
    os.close(fd)
    return seconds


# --- openings -------------------------------------------------------------------------------------


async def _openings(
    report: Report, prefix: str, ways: dict[str, tuple[str, str]], plan: Plan
) -> dict[str, float]:
    """Open sessions one by one, then many at a time, each way in turn; return the medians in ms."""
    async with _connected(ways) as stubs:
        for stub in stubs.values():
            await _several(stub, 4)
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(plan.openings):
            for name, stub in stubs.items():
                times[name] += await _several(stub, 1)
        middle = {name: 1000 * float(np.median(each)) for name, each in times.items()}
        for name, value in middle.items():
            report.figure(f"{prefix}.{name}.open_ms", value)
        report.detail(f"{prefix}.open", {name: Sample.of(each) for name, each in times.items()})
        for name, stub in stubs.items():
            crowd = await asyncio.gather(*(_several(stub, plan.crowd) for _ in range(CALLERS)))
            slowest = 1000 * float(np.percentile(np.concatenate(crowd), 95))
            report.figure(f"{prefix}.s{CALLERS}.{name}.open_p95_ms", slowest)
    return middle


@asynccontextmanager
async def _connected(ways: dict[str, tuple[str, str]]) -> AsyncIterator[dict[str, Stubs]]:
    channels = {
        name: tuple(map(aio.insecure_channel, addresses)) for name, addresses in ways.items()
    }
    yield {
        name: (EncoderServiceStub(encoder), DecoderServiceStub(decoder))
        for name, (encoder, decoder) in channels.items()
    }
    for pair in channels.values():
        for channel in pair:
            await channel.close()


async def _several(stubs: Stubs, count: int) -> list[float]:
    """Open sessions on one memory, one after the other; return the seconds that each took."""
    encoder, decoder = stubs
    reference = await _encode(encoder, SOURCE_TOKENS)
    seconds = []
    for _ in range(count):
        session = dec.SessionHeader(reference=reference, target_language=shapes.LANGUAGE)
        requests = iter([dec.OpenSessionRequest(header=session)])
        began = time.perf_counter()
        opened = await decoder.OpenSession(requests)
        seconds.append(time.perf_counter() - began)
        await decoder.CloseSession(dec.CloseSessionRequest(session_id=opened.session_id))
    await encoder.ReleaseMemory(
        enc.ReleaseMemoryRequest(memory_id=reference.memory_id, lease_id=reference.lease.lease_id)
    )
    return seconds


async def _encode(
    encoder: EncoderServiceAsyncStub, tokens: int, lease_seconds: int = 60
) -> tensor_pb2.MemoryReference:
    ids = [8 + number % 1000 for number in range(tokens - 1)]
    answer = await encoder.Encode(
        enc.EncodeRequest(
            source=enc.Source(tokens=enc.TokenIds(ids=[*ids, shapes.EOS])),
            delivery=enc.MEMORY_DELIVERY_REFERENCE,
            lease_ms=1000 * lease_seconds,
            omit_source_tokens=True,
        )
    )
    return answer.reference
