"""`open-loop`: requests that arrive when they please: how late are the slowest, at which load?

The embedded model on real text: the sources are `benchmarks/sentences.txt`, each translated into
Japanese until the model ends it. Arrivals are a Poisson process, the same one for us and for
CTranslate2 behind its thin server with request batching, both on the same cores as the clients. A
latency counts from the arrival. A contestant that has failed to finish a load in time is spared
the heavier ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import event_loop, shapes
from benchmarks.load import Contestant, Load, Splitformer, batching_peer, open_loop
from benchmarks.peers.ctranslate2_model import convert
from benchmarks.report import Report
from benchmarks.servers import ctranslate2_server, our_services, started
from splitformer.model.checkpoint import Checkpoint
from splitformer.serving.local import LocalServices

LANGUAGE = "ja"  # its token is the one that the peer's model starts with
THREADS = 1
"""Of each of our services."""

OURS, BATCHING = "ours", "ctranslate2_batching_server"
SENTENCES = Path(__file__).with_name("sentences.txt")


@dataclass(frozen=True, slots=True)
class Plan:
    """Requests per second, seconds of arrivals at each, seconds until one is given up."""

    rates: tuple[int, ...]
    seconds: float
    patience: float


QUICK = Plan((10, 40), 4.0, 2.0)
FULL = Plan((10, 20, 40, 60, 80, 100, 120, 160), 4.0, 2.0)


def run(report: Report, cache: Path, quick: bool) -> None:
    """Measure and report `serve.open.*`."""
    plan, folder = QUICK if quick else FULL, shapes.checkpoint_folder(shapes.EMBEDDED, cache)
    checkpoint = Checkpoint(folder)
    lines = SENTENCES.read_text(encoding="utf-8").splitlines()
    sources = [[piece.id for piece in checkpoint.encode_source(line)] for line in lines]
    peer = convert(checkpoint.load, cache / f"{folder.name}-ct2-int8", "int8")
    vocabulary = checkpoint.description.architecture.target_vocabulary_size
    command = ctranslate2_server(peer, vocabulary, 1, "--batching")
    with (
        started({BATCHING: command}) as servers,
        our_services(str(folder), cache, THREADS) as services,
    ):
        event_loop.run(_measure(report, services, servers[BATCHING].address, plan, sources))


async def _measure(
    report: Report, services: LocalServices, peer: str, plan: Plan, sources: list[list[int]]
) -> None:
    contestants: dict[str, Contestant] = {
        OURS: Splitformer(services.encoder, services.decoder, LANGUAGE),
        BATCHING: batching_peer(peer),
    }
    overloaded: set[str] = set()
    for contestant in contestants.values():
        await open_loop(contestant, 20, 1.0, sources, plan.patience)  # warm-up
    for rate in plan.rates:
        loads = {
            name: await open_loop(contestant, rate, plan.seconds, sources, plan.patience)
            for name, contestant in contestants.items()
            if name not in overloaded
        }
        _report(report, rate, loads)
        overloaded |= {name for name, load in loads.items() if load.unfinished}
    for contestant in contestants.values():
        await contestant.close()


def _report(report: Report, rate: int, loads: Mapping[str, Load]) -> None:
    for name, load in loads.items():
        prefix = f"serve.open.r{rate}.{name}"
        report.figure(f"{prefix}.unfinished", load.unfinished)
        if load.unfinished or not load.whole:
            continue  # its slowest are not known
        report.figure(f"{prefix}.tokens_per_second", load.tokens_per_second)
        for what, times in (("request", load.whole), ("ttft", load.first)):
            report.figure(f"{prefix}.{what}_p50_ms", 1000 * float(np.percentile(times, 50)))
            report.figure(f"{prefix}.{what}_p99_ms", 1000 * float(np.percentile(times, 99)))
