"""`split-tax`: what two services cost over the same engines in one process, on the same cores.

The two services run in the layout of `splitformer serve`; the one process has a thread for encoding
and one for decoding, on any core. Both are reached through the same gRPC server with the same token
messages. Over two services a request is two RPCs, and the memory goes over the wire between them;
in one process it is one RPC (`benchmarks/peers/one_process.py`). Requests of one stream go to both
in turns, in an order left to chance; what is added is the median of the pairs' differences.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks import event_loop, shapes
from benchmarks.load import (
    SOURCE_TOKENS,
    TARGET_TOKENS,
    Contestant,
    Splitformer,
    closed_loop,
    ours_in_one_process,
)
from benchmarks.measuring import Sample
from benchmarks.report import Report
from benchmarks.servers import laid_out, started

SPLIT, WHOLE = "two_services", "one_process"


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure."""

    requests: int
    streams: int
    rounds: int
    seconds: float


QUICK = Plan(requests=60, streams=32, rounds=2, seconds=4.0)
FULL = Plan(requests=300, streams=32, rounds=6, seconds=4.0)


@dataclass(slots=True)
class Single:
    """Times of one stream's requests, in milliseconds."""

    whole: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)


def run(report: Report, cache: Path, quick: bool) -> None:
    """Measure and report `split_tax.*` in the Marian-base shape."""
    plan, shape = QUICK if quick else FULL, "marian-base"
    folder = str(shapes.checkpoint_folder(shape, cache))
    vocabulary = shapes.SHAPES[shape].target_vocabulary_size
    command = ["benchmarks.peers.one_process", folder, "--language", shapes.LANGUAGE]
    with (
        started({WHOLE: command}) as servers,
        laid_out(folder, cache) as services,
    ):
        endpoints = Endpoints(services.encoder, services.decoder, servers[WHOLE].address)
        event_loop.run(_measure(report, endpoints, plan, vocabulary))


@dataclass(frozen=True, slots=True)
class Endpoints:
    """host:port of the two services, and of the one process."""

    encoder: str
    decoder: str
    whole: str

    def connect(self) -> dict[str, Contestant]:
        """Open connections to both contestants."""
        return {
            SPLIT: Splitformer(self.encoder, self.decoder, shapes.LANGUAGE),
            WHOLE: ours_in_one_process(self.whole),
        }


async def _measure(report: Report, endpoints: Endpoints, plan: Plan, vocabulary: int) -> None:
    contestants = endpoints.connect()
    for contestant in contestants.values():
        await closed_loop(contestant, 4, 0.5, vocabulary)  # warm-up
    _report_single(report, await _single(contestants, plan.requests, vocabulary))
    rates = await _concurrent(contestants, plan, vocabulary)
    for name, each in rates.items():
        report.figure(f"split_tax.s{plan.streams}.{name}.tokens_per_second", float(np.median(each)))
    pairs = zip(rates[SPLIT], rates[WHOLE], strict=True)
    ratio = float(np.median([ours / theirs for ours, theirs in pairs]))
    report.figure(f"split_tax.s{plan.streams}.throughput_ratio", ratio)
    report.detail("split_tax", {name: Sample.of(each) for name, each in rates.items()})
    for contestant in contestants.values():
        await contestant.close()


async def _single(
    contestants: Mapping[str, Contestant], requests: int, vocabulary: int
) -> dict[str, Single]:
    """Send one request after the other, to each contestant in turn."""
    numbers, times = random.Random(0), {name: Single() for name in contestants}
    for _ in range(requests):
        ids = [*(numbers.randrange(8, vocabulary) for _ in range(SOURCE_TOKENS - 1)), 1]
        for name in numbers.sample(list(contestants), len(contestants)):
            began = time.perf_counter()
            first = 0.0
            async for _ in contestants[name].request(ids, TARGET_TOKENS):
                first = first or time.perf_counter() - began
            times[name].first.append(1000 * first)
            times[name].whole.append(1000 * (time.perf_counter() - began))
    return times


async def _concurrent(
    contestants: Mapping[str, Contestant], plan: Plan, vocabulary: int
) -> dict[str, list[float]]:
    chance = random.Random(0)
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(plan.rounds):
        for name in chance.sample(list(contestants), len(contestants)):
            load = await closed_loop(contestants[name], plan.streams, plan.seconds, vocabulary)
            rates[name].append(load.tokens_per_second)
    return rates


def _report_single(report: Report, times: Mapping[str, Single]) -> None:
    for name, each in times.items():
        report.figure(f"split_tax.{name}.ms", float(np.median(each.whole)))
        report.figure(f"split_tax.{name}.ttft_ms", float(np.median(each.first)))
    split, whole = times[SPLIT], times[WHOLE]
    report.figure("split_tax.added_ms", _usually_more(split.whole, whole.whole))
    report.figure("split_tax.added_ttft_ms", _usually_more(split.first, whole.first))


def _usually_more(some: Sequence[float], others: Sequence[float]) -> float:
    """Return the median difference of pairs."""
    return float(np.median(np.subtract(some, others)))
