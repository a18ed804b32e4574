"""`isolation`: what running decodes notice of a burst of encoding, and what five languages cost.

Eight streams decode. The gaps between their tokens are measured while nothing else happens, with
the encoder's process stopped, and while it works at a burst of 64 long sources; both services in
the default layout of `splitformer serve`. The same with both engines in one process.

Fan-out: the tokens that the encoder service counts for a sentence in five languages, over those for
one language.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from grpc import aio

from benchmarks import shapes
from benchmarks.idle import Uploading
from benchmarks.measuring import Sample
from benchmarks.report import Report
from benchmarks.servers import laid_out, started
from splitformer.v1 import encoder_service_pb2 as enc
from splitformer.v1.encoder_service_pb2_grpc import EncoderServiceStub
from splitformer_client import connect

STREAMS = 8
TARGET = 480
BURST = 64
LEASE_MS = 2000
LANGUAGES = ("ja", "de", "fr", "es", "zh_CN")


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure.

    Attributes:
        rounds: Of everything.
        seconds: Of each phase.
        source: Tokens of a long source.
        target: Tokens of a stream's target, enough for a phase.
        under_way: Seconds from the burst's start until the encoder is at it.
    """

    rounds: int
    seconds: float
    source: int
    target: int = TARGET
    under_way: float = 0.2


QUICK = Plan(2, 2.0, 256)
FULL = Plan(10, 4.0, 384)


@dataclass(frozen=True, slots=True)
class Engines:
    """An encoder and a decoder to measure: their addresses, and the encoder's own process."""

    encoder: str
    decoder: str
    encoder_pid: int | None = None


def run(report: Report, cache: Path, quick: bool) -> None:
    """Measure and report `isolation.*` in the Marian-base shape, and `fanout.*`."""
    plan = QUICK if quick else FULL
    folder = str(shapes.checkpoint_folder("marian-base", cache))
    command = ["benchmarks.peers.one_process", folder, "--language", shapes.LANGUAGE]
    with ExitStack() as stack:
        whole = stack.enter_context(started({"whole": command}))["whole"].address
        services = stack.enter_context(laid_out(folder, cache))
        pid = services.pids["encoder"]
        contestants = {
            "": Engines(services.encoder, services.decoder, pid),
            "one_process_": Engines(whole, whole),
        }
        asyncio.run(_measure(report, contestants, plan))
    with laid_out("", cache) as services:
        page = f"http://127.0.0.1:{services.ports.encoder_metrics}/metrics"
        _fan_out(report, services.encoder, services.decoder, page)


async def _measure(report: Report, contestants: dict[str, Engines], plan: Plan) -> None:
    gaps: dict[str, list[list[float]]] = {}
    for engines in contestants.values():
        await _streams(engines, plan, 1.0)  # warm-up
    for _ in range(plan.rounds):
        for name, engines in contestants.items():
            if engines.encoder_pid is not None:
                with _stopped(engines.encoder_pid):
                    gaps.setdefault("alone", []).append(await _streams(engines, plan, plan.seconds))
            gaps.setdefault(f"{name}idle", []).append(await _streams(engines, plan, plan.seconds))
            busy = await _streams(engines, plan, plan.seconds, burst=True)
            gaps.setdefault(f"{name}busy", []).append(busy)
    slowest = {name: [_p99(each) for each in rounds] for name, rounds in gaps.items()}
    for name, each in slowest.items():
        report.figure(f"isolation.{name}.itl_p99_ms", 1000 * float(np.median(each)))
    for figure, over, under in (
        ("itl_p99_ratio", "busy", "idle"),
        ("idle_vs_alone_p99", "idle", "alone"),
        ("one_process_itl_p99_ratio", "one_process_busy", "one_process_idle"),
    ):
        ratios = [a / b for a, b in zip(slowest[over], slowest[under], strict=True)]
        report.figure(f"isolation.{figure}", float(np.median(ratios)))
    report.detail("isolation", {name: Sample.of(each) for name, each in slowest.items()})


def _p99(gaps: list[float]) -> float:
    return float(np.percentile(gaps, 99))


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    """Take a process off the processor, as if it were not there."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def _streams(
    engines: Engines, plan: Plan, seconds: float, burst: bool = False
) -> list[float]:
    """Run the streams for a while, once all are under way; return the seconds between tokens."""
    uploading, gaps = Uploading(engines.decoder), _Gaps()
    await uploading.learn()
    streams = [asyncio.create_task(_stream(uploading, plan, gaps)) for _ in range(STREAMS)]
    await gaps.all_running.wait()
    encoding = asyncio.create_task(_burst(engines.encoder, plan)) if burst else None
    if encoding:
        await asyncio.sleep(plan.under_way)
    gaps.seconds.clear()
    tasks = [*streams, *filter(None, [encoding])]
    await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await uploading.close()
    return gaps.seconds


@dataclass(slots=True)
class _Gaps:
    """Streams that have a first token, and the seconds between tokens so far."""

    running: int = 0
    seconds: list[float] = field(default_factory=list)
    all_running: asyncio.Event = field(default_factory=asyncio.Event)

    def begun(self) -> None:
        """Count a stream that has its first token."""
        self.running += 1
        if self.running == STREAMS:
            self.all_running.set()


async def _stream(uploading: Uploading, plan: Plan, gaps: _Gaps) -> None:
    """Decode one long target; note the time between its tokens."""
    session = await uploading.open(plan.target)
    last = 0.0
    async for _ in uploading.generate(session, plan.target, close=True):
        now = time.perf_counter()
        if last:
            gaps.seconds.append(now - last)
        else:
            gaps.begun()
        last = now


async def _burst(encoder: str, plan: Plan) -> None:
    """Send many long sources at once, and take the answers."""

    def requests() -> Iterator[enc.EncodeBatchRequest]:
        for tag in range(BURST):
            ids = [8 + (tag + number) % 1000 for number in range(plan.source - 1)]
            source = enc.Source(tokens=enc.TokenIds(ids=[*ids, shapes.EOS]))
            request = enc.EncodeRequest(
                source=source,
                delivery=enc.MEMORY_DELIVERY_REFERENCE,
                lease_ms=LEASE_MS,
                omit_source_tokens=True,
            )
            yield enc.EncodeBatchRequest(tag=tag, request=request)

    async with aio.insecure_channel(encoder) as channel:
        async for answer in EncoderServiceStub(channel).EncodeBatch(requests()):
            assert answer.HasField("response"), answer


# --- fan-out --------------------------------------------------------------------------------------


def _fan_out(report: Report, encoder: str, decoder: str, page: str) -> None:
    counted = []
    with connect(encoder, decoder) as client:
        for languages in (LANGUAGES[:1], LANGUAGES):
            before = _source_tokens(page)
            client.translate("Do you want to delete the selected files?", languages)
            counted.append(_source_tokens(page) - before)
    report.figure("fanout.encode_work_ratio", counted[1] / counted[0])


def _source_tokens(page: str) -> float:
    """Read how many tokens the encoder service has encoded."""
    with urllib.request.urlopen(page) as answer:
        text = answer.read().decode()
    found = re.search(r"^splitformer_encoder_source_tokens_total (\S+)$", text, re.MULTILINE)
    assert found, "the encoder counts its tokens"
    return float(found[1])
