"""`request`: what `decode` measures with everything before it: 24 source tokens are encoded first.

Ours: the native encoder and decoder, both int8, in one process, without protocol. Theirs:
`translate_batch` as it is. 32 tokens per target, end token suppressed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks import shapes
from benchmarks.contest import STEPS, Contest
from benchmarks.decode import Scope, peers, times
from benchmarks.measuring import Report, Sample, interleaved

QUICK = Scope((1, 8, 32, 64), 5, most_seconds=5.0)
FULL = Scope((1, 2, 4, 8, 16, 32, 64), 7, ("int8", "fp32"), slow=32, most_seconds=12.0)


def run(report: Report, cache: Path, quick: bool) -> None:
    """Measure and report `request.*` in the Marian-base shape."""
    scope = QUICK if quick else FULL
    folder = shapes.checkpoint_folder("marian-base", cache)
    contest = Contest(folder, cache, scope.precisions, max(scope.batches))
    for batch in scope.batches:
        measure(report, contest, "request", batch, scope)
    contest.close()


def measure(report: Report, contest: Contest, prefix: str, batch: int, scope: Scope) -> None:
    """Time all contestants at one batch size and report `PREFIX.bN.*`."""
    contestants = {"ours": contest.request(batch)}
    for peer in contest.fastest_peers(batch):
        contestants[peer.name] = contest.translate(peer, batch, STEPS)
    samples = interleaved(contestants, scope.rounds, scope.most_seconds)
    if batch == scope.slow:
        samples |= interleaved({"hf": contest.generate(batch, STEPS)}, 1)
    report.detail(f"{prefix}.b{batch}", samples)
    _figures(report, f"{prefix}.b{batch}", batch, samples)


def _figures(report: Report, prefix: str, batch: int, samples: Mapping[str, Sample]) -> None:
    ours = samples["ours"]
    report.figure(f"{prefix}.ms", 1000 * ours.median)
    report.figure(f"{prefix}.tokens_per_second", batch * STEPS / ours.median)
    for precision, names in peers(samples).items():
        suffix = "" if precision == "int8" else f"_{precision}"
        ratio = min(times(ours.seconds, samples[name].seconds) for name in names)
        report.figure(f"{prefix}.vs_ctranslate2{suffix}", ratio)
    if "hf" in samples:
        report.figure(f"{prefix}.vs_hf", samples["hf"].seconds[0] / ours.median)
