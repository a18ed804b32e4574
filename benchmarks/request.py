"""`request`: what `decode` measures with everything before it: 24 source tokens are encoded first.

Ours: the native encoder and decoder, both int8, in one process, without protocol. Theirs:
`translate_batch` as it is. 32 tokens per target, end token suppressed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks import shapes
from benchmarks.contest import STEPS, Contest
from benchmarks.decode import Scope, peers, turns
from benchmarks.measuring import Match, Sample, interleaved, times
from benchmarks.report import Report

QUICK = Scope((1, 8, 32, 64), 20, 35.0)
FULL = Scope((1, 2, 4, 8, 16, 32, 64), 30, 300.0, ("int8", "fp32"), slow=32, slow_rounds=5)


def run(report: Report, cache: Path, quick: bool) -> None:
    """Measure and report `request.*` in the Marian-base shape."""
    scope = QUICK if quick else FULL
    folder = shapes.checkpoint_folder("marian-base", cache)
    contest = Contest(folder, cache, scope.precisions, max(scope.batches))
    measure(report, contest, "request", scope)
    contest.close()


def measure(report: Report, contest: Contest, prefix: str, scope: Scope) -> None:
    """Time all contestants at all batch sizes and report `PREFIX.bN.*`."""
    matches = {f"{prefix}.b{batch}": match(contest, batch) for batch in scope.batches}
    found = interleaved(matches, scope.rounds, scope.most_seconds)
    for batch, (name, samples) in zip(scope.batches, found.items(), strict=True):
        report.detail(name, samples)
        _figures(report, name, batch, samples)
    if scope.slow:
        slow(report, contest, prefix, scope)


def match(contest: Contest, batch: int) -> Match:
    """Our requests, and the peers'."""
    contestants = {"ours": contest.request(batch)}
    for peer in contest.fastest_peers(batch):
        contestants[peer.name] = contest.translate(peer, batch, STEPS)
    return Match.apart(contestants, turns(batch))


def slow(report: Report, contest: Contest, prefix: str, scope: Scope) -> None:
    """Time Hugging Face beside our requests."""
    name, batch = f"{prefix}.b{scope.slow}", scope.slow
    contestants = {"ours": contest.request(batch), "hf": contest.generate(batch, STEPS)}
    samples = interleaved({name: Match.apart(contestants)}, scope.slow_rounds)[name]
    report.detail(f"{name}.slow", samples)
    report.figure(f"{name}.vs_hf", times(samples["ours"], samples["hf"]))


def _figures(report: Report, prefix: str, batch: int, samples: Mapping[str, Sample]) -> None:
    ours = samples["ours"]
    report.figure(f"{prefix}.ms", 1000 * ours.median)
    report.figure(f"{prefix}.tokens_per_second", batch * STEPS / ours.median)
    for precision, name in peers(samples).items():
        suffix = "" if precision == "int8" else f"_{precision}"
        report.figure(f"{prefix}.vs_ctranslate2{suffix}", times(ours, samples[name]))
