"""`more-shapes`: `decode` and `request` in the other shapes.

The embedded model; deep-shallow (12 + 2 layers); one like NLLB-600M (12 + 12 layers, width 1024, a
vocabulary of 256,000). The weights of the last two are random. Briefly: the embedded model alone.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import decode, request, shapes
from benchmarks.contest import Contest
from benchmarks.decode import Scope
from benchmarks.report import Report

QUICK = {shapes.EMBEDDED: Scope((1, 32), 10, 8.0)}
FULL = {
    shapes.EMBEDDED: Scope((1, 8, 32, 64), 20, 30.0, ("int8", "fp32")),
    "deep-shallow": Scope((1, 8, 32), 15, 30.0),
    "nllb-600m-like": Scope((1, 8), 5, 60.0),
}


def run(report: Report, cache: Path, quick: bool) -> None:
    """Measure and report `decode.SHAPE.*` and `request.SHAPE.*`."""
    for shape, scope in (QUICK if quick else FULL).items():
        folder = shapes.checkpoint_folder(shape, cache)
        contest = Contest(folder, cache, scope.precisions, max(scope.batches))
        decode.measure(report, contest, f"decode.{shape}", scope)
        request.measure(report, contest, f"request.{shape}", scope)
        contest.close()
