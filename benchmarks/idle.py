"""`idle`: what 1,000 open sessions that nobody uses cost: memory, and time of the others' steps.

Two decoder services, memories uploaded so that no encoder takes part. In one of them, sessions are
opened, each decodes a little and is then left alone. Its growth in resident memory is compared
with the bytes that it counts for their memories, keys and values. Then a few active sessions are
measured in both services in turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from grpc import aio

from benchmarks import shapes
from benchmarks.load import SOURCE_TOKENS, closed_loop, options_for
from benchmarks.measuring import Sample
from benchmarks.processes import Usage
from benchmarks.report import Report
from benchmarks.servers import our_services
from splitformer import wire
from splitformer.serving.local import LocalServices
from splitformer.v1 import decoder_service_pb2 as dec, tensor_pb2
from splitformer.v1.decoder_service_pb2_grpc import DecoderServiceStub

WITH, WITHOUT = "with", "without"
IDLE_TOKENS = 2
"""Tokens of an idle session's target: they fill its first page of keys and values."""

FIRST = 200
"""Sessions opened before the measurement: they take what loading the model left free."""

OPENERS = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure."""

    sessions: int
    streams: int
    rounds: int
    seconds: float


QUICK = Plan(1000, 8, 3, 1.5)
FULL = Plan(1000, 8, 6, 4.0)


class Uploading:
    """A decoder service that is given random memories."""

    patient = True

    def __init__(self, address: str) -> None:
        self._channel = aio.insecure_channel(address)
        self._stub = DecoderServiceStub(self._channel)
        self._numbers = np.random.default_rng(0)
        self._header = tensor_pb2.MemoryHeader()

    async def learn(self) -> None:
        """Ask what memories must look like."""
        answer = await self._stub.GetModelInfo(dec.DecoderServiceGetModelInfoRequest())
        self._header = tensor_pb2.MemoryHeader(
            kind=tensor_pb2.MEMORY_KIND_SEQUENCE,
            fingerprint=answer.model.fingerprint,
            dtype=tensor_pb2.DATA_TYPE_F16,
            shape=(SOURCE_TOKENS, answer.model.d_model),
        )

    async def open(self, count: int) -> str:
        """Open a session with room for `count` tokens; return its id."""
        memory = self._numbers.standard_normal(tuple(self._header.shape), dtype=np.float32)
        data = wire.pack(memory, self._header.dtype)
        header = dec.SessionHeader(
            upload=self._header, target_language=shapes.LANGUAGE, max_positions=count
        )
        chunks = [dec.OpenSessionRequest(chunk=chunk) for chunk in wire.chunks_of(data, 2**19)]
        opened = await self._stub.OpenSession(
            iter([dec.OpenSessionRequest(header=header), *chunks])
        )
        return str(opened.session_id)

    async def generate(self, session: str, count: int, close: bool) -> AsyncIterator[object]:
        """Decode `count` tokens; yield once per token."""
        request = dec.GenerateRequest(
            session_id=session, options=options_for(count), close_on_end=close
        )
        async for response in self._stub.Generate(request):
            if response.HasField("tokens"):
                yield response

    async def request(self, ids: Sequence[int], count: int) -> AsyncIterator[object]:
        """Open a session, decode, close it; the ids do not matter."""
        async for token in self.generate(await self.open(count), count, close=True):
            yield token

    async def leave_open(self, sessions: int) -> None:
        """Open sessions, decode a target in each, and leave them alone."""

        async def some(share: int) -> None:
            for _ in range(share):
                session = await self.open(IDLE_TOKENS)
                async for _ in self.generate(session, IDLE_TOKENS, close=False):
                    pass

        await asyncio.gather(*(some(sessions // OPENERS) for _ in range(OPENERS)))

    async def counted_bytes(self) -> int:
        """Bytes that the service counts for memories, keys and values."""
        answer = await self._stub.GetLoad(dec.DecoderServiceGetLoadRequest())
        return int(answer.load.used_bytes)

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()


def run(report: Report, cache: Path, quick: bool) -> None:
    """Measure and report `idle.*` in the Marian-base shape."""
    plan, shape = QUICK if quick else FULL, "marian-base"
    folder = str(shapes.checkpoint_folder(shape, cache))
    vocabulary = shapes.SHAPES[shape].target_vocabulary_size
    flags = ("--memory-bytes", "4GiB", "--idle-seconds", "600")
    with ExitStack() as stack:
        services = {
            name: stack.enter_context(our_services(folder, cache, 1, *flags))
            for name in (WITHOUT, WITH)
        }
        asyncio.run(_measure(report, services, plan, vocabulary))


async def _measure(
    report: Report, services: Mapping[str, LocalServices], plan: Plan, vocabulary: int
) -> None:
    uploading = {name: Uploading(service.decoder) for name, service in services.items()}
    for each in uploading.values():
        await each.learn()
        await closed_loop(each, OPENERS, 1.0, vocabulary)  # warm-up
    await uploading[WITH].leave_open(FIRST)
    pid = services[WITH].pids["decoder"]
    resident, counted = Usage.of(pid).resident_bytes, await uploading[WITH].counted_bytes()
    await uploading[WITH].leave_open(plan.sessions)
    grown = Usage.of(pid).resident_bytes - resident
    counted = await uploading[WITH].counted_bytes() - counted
    prefix = f"idle.s{plan.sessions}"
    report.figure(f"{prefix}.counted_mib", counted / 2**20)
    report.figure(f"{prefix}.grown_mib", grown / 2**20)
    report.figure(f"{prefix}.grown_over_counted", grown / counted)
    await _steps(report, prefix, uploading, plan, vocabulary)
    for each in uploading.values():
        await each.close()


async def _steps(
    report: Report, prefix: str, uploading: Mapping[str, Uploading], plan: Plan, vocabulary: int
) -> None:
    rates: dict[str, list[float]] = {name: [] for name in uploading}
    gaps: dict[str, list[float]] = {name: [] for name in uploading}
    for _ in range(plan.rounds):
        for name, each in uploading.items():
            load = await closed_loop(each, plan.streams, plan.seconds, vocabulary)
            rates[name].append(load.tokens_per_second)
            gaps[name].append(float(np.median(load.between)))
    for name, each_rate in rates.items():
        report.figure(f"{prefix}.{name}.tokens_per_second", float(np.median(each_rate)))
    pairs = zip(gaps[WITH], gaps[WITHOUT], strict=True)
    report.figure(f"{prefix}.step_time_ratio", float(np.median([a / b for a, b in pairs])))
    report.detail("idle", {name: Sample.of(each) for name, each in rates.items()})
