"""`serve`: concurrent gRPC streams against CTranslate2 behind a thin server and in offline batches.

Closed loop, fixed lengths (24 source, 32 target tokens, end token suppressed), everything on the
same cores: our two services in the layout of `splitformer serve` or the peer's server, and the
clients. The contestants take turns in slices of fixed time, in an order left to chance, and a ratio
is the median of the rounds' ratios; of the peer's servers, those thread layouts and settings take
part that were fastest in a trial. The peer's offline batches, with neither server nor clients, are
the upper bound of what it can do.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import event_loop, shapes
from benchmarks.load import (
    Contestant as Server,
    Load,
    Splitformer,
    batching_peer,
    closed_loop,
    direct_peer,
)
from benchmarks.measuring import Sample
from benchmarks.peers.ctranslate2_model import convert
from benchmarks.peers.ctranslate2_offline import Offline
from benchmarks.processes import Usage, cpu_between, usages
from benchmarks.report import Report
from benchmarks.servers import ctranslate2_server, laid_out, started
from splitformer.model.checkpoint import Checkpoint
from splitformer.serving.local import LocalServices

OURS, DIRECT, BATCHING = "ours", "ctranslate2_server", "ctranslate2_batching_server"
OFFLINE = "ctranslate2_offline"


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure; times in seconds.

    Attributes:
        streams: Concurrent requests.
        rounds: Slices of each contestant.
        seconds: Of a slice; offline batches are translated for at least that long.
        trial_seconds: Of the slice in which a contestant's variants compete.
        trials_up_to: With more streams than these, the variants of the last trial take part.
        batching: Thread layouts (inter_threads) and waits (ms) of the batching server, each a
            variant.
    """

    streams: tuple[int, ...]
    rounds: int
    seconds: float
    trial_seconds: float
    trials_up_to: int
    batching: tuple[tuple[int, str], ...]


QUICK = Plan((16, 32), 2, 1.7, 0.3, 16, ((1, "5"),))
FULL = Plan((1, 8, 16, 32, 64), 3, 3.0, 0.5, 16, ((1, "2"), (1, "10"), (2, "10")))


@dataclass(frozen=True, slots=True)
class Entry:
    """A contestant: how to connect to it, and its processes by name."""

    connect: Callable[[], Server]
    pids: Mapping[str, int]


@dataclass(slots=True)
class Slices:
    """What a contestant did in all its slices."""

    loads: list[Load] = field(default_factory=list)
    cpu_seconds: list[dict[str, float]] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        """Target tokens per second, slice by slice."""
        return [load.tokens_per_second for load in self.loads]

    @property
    def rate(self) -> float:
        """The middle slice's."""
        return float(np.median(self.rates))

    def times(self, name: str) -> list[float]:
        """Times of all slices together: "first" or "between"."""
        return [value for load in self.loads for value in getattr(load, name)]

    def cpu_per_token(self) -> dict[str, float]:
        """CPU seconds per token, by process."""
        tokens = sum(load.all_tokens for load in self.loads)  # CPU time is until the last ends
        return {
            name: sum(each[name] for each in self.cpu_seconds) / tokens
            for name in self.cpu_seconds[0]
        }


def run(report: Report, cache: Path, quick: bool) -> None:
    """Measure and report `serve.*` in the Marian-base shape."""
    plan, shape = QUICK if quick else FULL, "marian-base"
    folder = shapes.checkpoint_folder(shape, cache)
    vocabulary = shapes.SHAPES[shape].target_vocabulary_size
    peer = convert(Checkpoint(folder).load, cache / f"{shape}-ct2-int8", "int8")
    with _entries(folder, peer, vocabulary, plan, cache) as entries:
        for streams in plan.streams:
            if streams <= plan.trials_up_to:
                chosen = event_loop.run(_trial(entries, streams, plan.trial_seconds, vocabulary))
            offline = Offline(peer, vocabulary, streams)
            slices = event_loop.run(_rounds(entries, chosen, offline, plan, vocabulary))
            _report(report, streams, slices, offline.rates)
        _report_memory(report, entries)


@contextmanager
def _entries(
    folder: Path, peer: Path, vocabulary: int, plan: Plan, cache: Path
) -> Iterator[dict[str, Entry]]:
    commands = {
        f"{DIRECT}-{inter}x{2 // inter}": ctranslate2_server(peer, vocabulary, inter)
        for inter in (1, 2)
    }
    for inter, wait in plan.batching:
        name = f"{BATCHING}-{inter}x{2 // inter}-wait{wait}"
        flags = ("--batching", "--wait-ms", wait)
        commands[name] = ctranslate2_server(peer, vocabulary, inter, *flags)
    with ExitStack() as stack:
        peers = stack.enter_context(started(commands))
        entries = {OURS: _ours(stack.enter_context(laid_out(str(folder), cache)))}
        for name, server in peers.items():
            connect = batching_peer if name.startswith(BATCHING) else direct_peer
            entries[name] = Entry(
                partial(connect, server.address),
                {"server": server.pid},
            )
        yield entries


def _ours(services: LocalServices) -> Entry:
    encoder, decoder = services.encoder, services.decoder
    return Entry(lambda: Splitformer(encoder, decoder, shapes.LANGUAGE), services.pids)


async def _trial(
    entries: Mapping[str, Entry], streams: int, seconds: float, vocabulary: int
) -> dict[str, str]:
    """Return the fastest variant of each kind."""
    rates = {}
    for name, entry in entries.items():
        contestant = entry.connect()
        load = await closed_loop(contestant, streams, seconds, vocabulary)
        rates[name] = load.tokens_per_second
        await contestant.close()
    return best_of_kind(rates)


async def _rounds(
    entries: Mapping[str, Entry],
    chosen: Mapping[str, str],
    offline: Offline,
    plan: Plan,
    vocabulary: int,
) -> dict[str, Slices]:
    """Let the chosen variants and offline batches take turns; return the slices by kind."""
    connected = {kind: entries[name].connect() for kind, name in chosen.items()}
    slices, chance = {kind: Slices() for kind in chosen}, random.Random(0)
    for _ in range(plan.rounds):
        for kind in chance.sample([*chosen, OFFLINE], len(chosen) + 1):
            if kind == OFFLINE:
                offline.take_turn(plan.seconds)
                continue
            pids = entries[chosen[kind]].pids
            before, client = usages(pids), _client_cpu()
            load = await closed_loop(connected[kind], offline.streams, plan.seconds, vocabulary)
            slices[kind].loads.append(load)
            used = cpu_between(before, usages(pids)) | {"clients": _client_cpu() - client}
            slices[kind].cpu_seconds.append(used)
    for contestant in connected.values():
        await contestant.close()
    return slices


def best_of_kind(rates: Mapping[str, float]) -> dict[str, str]:
    """Choose the fastest variant, `KIND-variant`, of each kind."""
    chosen: dict[str, str] = {}
    for name, rate in rates.items():
        kind = name.partition("-")[0]
        if kind not in chosen or rate > rates[chosen[kind]]:
            chosen[kind] = name
    return chosen


def _client_cpu() -> float:
    return time.process_time()


def _report(
    report: Report, streams: int, slices: Mapping[str, Slices], offline: Sequence[float]
) -> None:
    prefix = f"serve.s{streams}"
    for name, each in slices.items():
        report.figure(f"{prefix}.{name}.tokens_per_second", each.rate)
    report.figure(f"{prefix}.{OFFLINE}.tokens_per_second", float(np.median(offline)))
    ours = slices[OURS]
    for name in (DIRECT, BATCHING):
        report.figure(f"{prefix}.vs_{name}", _times(ours.rates, slices[name].rates))
        report.figure(f"{prefix}.{name}_share_of_offline", _times(slices[name].rates, offline))
    report.figure(f"{prefix}.vs_{OFFLINE}", _times(ours.rates, offline))
    _report_latency(report, prefix, slices)
    for name, each in slices.items():
        for process, seconds in each.cpu_per_token().items():
            report.figure(f"{prefix}.{name}.{process}.cpu_us_per_token", 1e6 * seconds)
    rates = {name: each.rates for name, each in slices.items()} | {OFFLINE: offline}
    report.detail(prefix, {name: Sample.of(each) for name, each in rates.items()})


def _times(rates: Sequence[float], others: Sequence[float]) -> float:
    """How many times one is another, round by round; the middle round's."""
    return float(np.median([one / other for one, other in zip(rates, others, strict=True)]))


def _report_latency(report: Report, prefix: str, slices: Mapping[str, Slices]) -> None:
    first = {name: each.times("first") for name, each in slices.items()}
    for name, each in first.items():
        if not each:
            continue  # too slow for a first token in any slice
        report.figure(f"{prefix}.{name}.ttft_p50_ms", 1000 * _percentile(each, 50))
        report.figure(f"{prefix}.{name}.ttft_p99_ms", 1000 * _percentile(each, 99))
    ratio = _percentile(first[OURS], 50) / _percentile(first[BATCHING], 50)
    report.figure(f"{prefix}.ttft_vs_batching_server", ratio)
    between = slices[OURS].times("between")
    middle, slow = _percentile(between, 50), _percentile(between, 99)
    report.figure(f"{prefix}.itl_p50_ms", 1000 * middle)
    report.figure(f"{prefix}.itl_p99_ms", 1000 * slow)
    report.figure(f"{prefix}.itl_p99_over_p50", slow / middle)


def _report_memory(report: Report, entries: Mapping[str, Entry]) -> None:
    for name, entry in entries.items():
        for process, pid in entry.pids.items():
            report.figure(f"serve.{name}.{process}.peak_mib", Usage.of(pid).peak_bytes / 2**20)


def _percentile(values: list[float], percent: int) -> float:
    return float(np.percentile(values, percent))
