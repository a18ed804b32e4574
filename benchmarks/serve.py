"""`serve`: concurrent gRPC streams against CTranslate2 behind a thin server and in offline batches.

Closed loop, fixed lengths (24 source, 32 target tokens, end token suppressed), everything on the
same cores: our two services or the peer's server, and the clients. The contestants take turns in
slices of fixed time; the peer's offline batches, with neither server nor clients, are the upper
bound of what it can do.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import ctranslate2
import numpy as np

from benchmarks import shapes
from benchmarks.load import (
    SOURCE_TOKENS,
    TARGET_TOKENS,
    Contestant,
    Load,
    Splitformer,
    ThinPeer,
    closed_loop,
)
from benchmarks.measuring import Report, Sample, interleaved
from benchmarks.peers.ctranslate2_model import convert, token_names
from splitformer.model.checkpoint import Checkpoint
from splitformer.serving.local import LocalServices, Ports

OURS, DIRECT, BATCHING = "ours", "ctranslate2_server", "ctranslate2_batching_server"
PEER_FLAGS = {
    DIRECT: ("--inter-threads", "1", "--intra-threads", "2"),
    BATCHING: ("--inter-threads", "1", "--intra-threads", "2", "--batching"),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure."""

    streams: tuple[int, ...]
    rounds: int
    seconds: float


QUICK = Plan(streams=(16, 32), rounds=2, seconds=2.0)
FULL = Plan(streams=(1, 4, 16, 32, 64), rounds=5, seconds=5.0)


def run(report: Report, cache: Path, quick: bool) -> None:
    """Measure and report `serve.*`."""
    plan, shape = QUICK if quick else FULL, "marian-base"
    folder = shapes.checkpoint_folder(shape, cache)
    vocabulary = shapes.SHAPES[shape].target_vocabulary_size
    peer = convert(Checkpoint(folder).load(), cache / f"{shape}-ct2-int8", "int8")
    with ExitStack() as stack:
        services = stack.enter_context(
            LocalServices(Ports.free(), str(folder), cache / "services.log")
        )
        addresses = {
            name: stack.enter_context(_peer_server(peer, vocabulary, flags))
            for name, flags in PEER_FLAGS.items()
        }
        makers: dict[str, Callable[[], Contestant]] = {
            OURS: lambda: Splitformer(services.encoder, services.decoder, shapes.LANGUAGE)
        }
        for name, address in addresses.items():
            makers[name] = lambda address=address: ThinPeer(address)  # type: ignore[misc]
        for streams in plan.streams:
            loads = asyncio.run(_rounds(makers, streams, plan, vocabulary))
            offline = _offline(peer, vocabulary, streams, plan.rounds)
            _report(report, streams, loads, offline)


async def _rounds(
    makers: Mapping[str, Callable[[], Contestant]], streams: int, plan: Plan, vocabulary: int
) -> dict[str, list[Load]]:
    contestants = {name: make() for name, make in makers.items()}
    loads: dict[str, list[Load]] = {name: [] for name in contestants}
    for contestant in contestants.values():
        await closed_loop(contestant, streams, 0.5, vocabulary)
    for _ in range(plan.rounds):
        for name, contestant in contestants.items():
            loads[name].append(await closed_loop(contestant, streams, plan.seconds, vocabulary))
    for contestant in contestants.values():
        await contestant.close()
    return loads


def _offline(peer: Path, vocabulary: int, streams: int, rounds: int) -> float:
    """Return the peer's target tokens/s on batches of `streams`, best of two thread layouts."""
    names = token_names(vocabulary)
    numbers = np.random.default_rng(0).integers(4, vocabulary, (streams, SOURCE_TOKENS))
    sources = [[names[i] for i in row] for row in numbers]
    contestants = {}
    for inter, intra in ((1, 2), (2, 1)):
        translator = ctranslate2.Translator(
            str(peer), compute_type="int8", inter_threads=inter, intra_threads=intra
        )
        contestants[f"{inter}x{intra}"] = _translate(translator, sources, -(-streams // inter))
    samples = interleaved(contestants, rounds)
    return streams * TARGET_TOKENS / min(sample.median for sample in samples.values())


def _translate(translator: object, sources: list[list[str]], batch: int) -> Callable[[], object]:
    def run() -> object:
        return translator.translate_batch(  # type: ignore[attr-defined]
            sources,
            max_batch_size=batch,
            beam_size=1,
            max_decoding_length=TARGET_TOKENS,
            min_decoding_length=TARGET_TOKENS,
            suppress_sequences=[["</s>"]],
        )

    return run


def _report(report: Report, streams: int, loads: Mapping[str, list[Load]], offline: float) -> None:
    prefix = f"serve.s{streams}"
    rates = {name: [load.tokens_per_second for load in each] for name, each in loads.items()}
    rate = {name: _median(each) for name, each in rates.items()}
    for name, value in rate.items():
        report.figure(f"{prefix}.{name}.tokens_per_second", value)
    for name in (DIRECT, BATCHING):
        report.figure(f"{prefix}.vs_{name}", rate[OURS] / rate[name])
        report.figure(f"{prefix}.{name}_share_of_offline", rate[name] / offline)
    report.figure(f"{prefix}.vs_ctranslate2_offline", rate[OURS] / offline)
    first = {name: _all(loads[name], "first") for name in loads}
    between = _all(loads[OURS], "between")
    report.figure(f"{prefix}.ttft_p50_ms", 1000 * _median(first[OURS]))
    report.figure(f"{prefix}.ttft_p99_ms", 1000 * float(np.percentile(first[OURS], 99)))
    report.figure(
        f"{prefix}.ttft_vs_batching_server", _median(first[OURS]) / _median(first[BATCHING])
    )
    report.figure(f"{prefix}.itl_p50_ms", 1000 * _median(between))
    report.figure(
        f"{prefix}.itl_p99_over_p50", float(np.percentile(between, 99)) / _median(between)
    )
    report.detail(prefix, {name: Sample(tuple(each)) for name, each in rates.items()})


def _median(values: list[float]) -> float:
    return float(np.median(values))


def _all(loads: list[Load], name: str) -> list[float]:
    return [value for load in loads for value in getattr(load, name)]


@contextmanager
def _peer_server(model: Path, vocabulary: int, flags: tuple[str, ...]) -> Iterator[str]:
    module = "benchmarks.peers.ctranslate2_server"
    command = [sys.executable, "-m", module, str(model), "--vocabulary", str(vocabulary), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()
