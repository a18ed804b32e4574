"""`decode`: the loop alone, against the peers and the GEMM floor, in the Marian-base shape.

Every contestant takes 32 sequential steps of one row per sequence; each row chooses its own token
by argmax over the whole vocabulary, with the end token suppressed. A peer that cannot run steps
alone is measured by its time for 33 tokens minus its time for 1. The floor is the step's matrix
products alone, in the same precision and with the same threads, looped in C++: by our kernels or by
FBGEMM, whichever takes less time in a round.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks import shapes
from benchmarks.contest import STEPS, Contest
from benchmarks.measuring import Report, Sample, interleaved

SLOW_STEPS = 8
"""Hugging Face's steps in place of 32: the first ones, which are the fastest."""

ERROR_BATCH = 16
"""Sequences whose log-probabilities are compared with exact ones."""


@dataclass(frozen=True, slots=True)
class Scope:
    """How much to measure.

    Attributes:
        batches: Sequences per step.
        rounds: How often each contestant is timed.
        precisions: CTranslate2's.
        slow: The batch at which Hugging Face takes part, once.
        most_seconds: Per batch, for all rounds but the first.
    """

    batches: tuple[int, ...]
    rounds: int
    precisions: tuple[str, ...] = ("int8",)
    slow: int = 0
    most_seconds: float = math.inf


QUICK = Scope((1, 8, 32, 64), 4, slow=32, most_seconds=1.5)
FULL = Scope((1, 2, 4, 8, 16, 32, 64), 7, ("int8", "fp32"), slow=32, most_seconds=12.0)


def run(report: Report, cache: Path, quick: bool) -> None:
    """Measure and report `decode.*`."""
    scope = QUICK if quick else FULL
    folder = shapes.checkpoint_folder("marian-base", cache)
    contest = Contest(folder, cache, scope.precisions, max(ERROR_BATCH, *scope.batches))
    for batch in scope.batches:
        measure(report, contest, "decode", batch, scope)
    report.figure("decode.int8_error_vs_ctranslate2", int8_error_ratio(contest))
    contest.close()


def measure(report: Report, contest: Contest, prefix: str, batch: int, scope: Scope) -> None:
    """Time all contestants at one batch size and report `PREFIX.bN.*`."""
    contestants = {
        "ours": contest.steps(batch),
        "begin": contest.begin(batch),
        "floor": contest.floor(batch),
        "fbgemm": contest.fbgemm(batch),
    }
    for peer in contest.fastest_peers(batch):
        contestants[f"{peer.name}-33"] = contest.translate(peer, batch, STEPS + 1)
        contestants[f"{peer.name}-1"] = contest.translate(peer, batch, 1)
    samples = interleaved(contestants, scope.rounds, scope.most_seconds)
    if batch == scope.slow:  # far slower than the others: one round is enough
        slow = {
            "hf-9": contest.generate(batch, SLOW_STEPS + 1),
            "hf-1": contest.generate(batch, 1),
        }
        samples |= interleaved(slow, 1)
    report.detail(f"{prefix}.b{batch}", samples)
    _figures(report, f"{prefix}.b{batch}", samples)


def _figures(report: Report, prefix: str, samples: Mapping[str, Sample]) -> None:
    ours = minus(samples, "ours", "begin")
    report.figure(f"{prefix}.ms_per_step", 1000 * statistics.median(ours) / STEPS)
    for precision, names in peers(samples, "-33").items():
        theirs = [minus(samples, f"{name}-33", f"{name}-1") for name in names]
        suffix = "" if precision == "int8" else f"_{precision}"
        report.figure(f"{prefix}.vs_ctranslate2{suffix}", min(times(ours, t) for t in theirs))
    floors = zip(samples["floor"].seconds, samples["fbgemm"].seconds, strict=True)
    report.figure(f"{prefix}.vs_floor", 1 / times(tuple(map(min, floors)), ours))
    if "hf-9" in samples:
        theirs_once = minus(samples, "hf-9", "hf-1")[0] / SLOW_STEPS
        report.figure(f"{prefix}.vs_hf", theirs_once / (statistics.median(ours) / STEPS))


def peers(samples: Mapping[str, Sample], suffix: str = "") -> dict[str, list[str]]:
    """Return CTranslate2's contestants by precision, their names without `suffix`."""
    found: dict[str, list[str]] = {}
    for name in samples:
        if name.startswith("ctranslate2-") and name.endswith(suffix):
            found.setdefault(name.split("-")[1], []).append(name.removesuffix(suffix))
    return found


def minus(samples: Mapping[str, Sample], whole: str, part: str) -> tuple[float, ...]:
    """Seconds of one contestant less those of another, round by round."""
    pairs = zip(samples[whole].seconds, samples[part].seconds, strict=True)
    return tuple(a - b for a, b in pairs)


def times(ours: tuple[float, ...], theirs: tuple[float, ...]) -> float:
    """How many times faster we are: the median of the rounds' own ratios."""
    return statistics.median(b / a for a, b in zip(ours, theirs, strict=True))


def int8_error_ratio(contest: Contest) -> float:
    """Mean absolute error of log-probabilities against float32, ours over CTranslate2's.

    Both continue the same sources after the same eight random target tokens; our encoder runs in
    float32 here, so that what is compared is the decoder.
    """
    size, batch = contest.model.config.target_vocabulary_size, ERROR_BATCH
    numbers = np.random.default_rng(1)
    prefixes = numbers.integers(4, size, (batch, 8)).tolist()
    tokens = [[shapes.START, *prefix] for prefix in prefixes]
    memories = contest.exact_memories(batch)
    with torch.inference_mode():
        exact = contest.model.step(tokens, [contest.model.begin(m) for m in memories])
        native = contest.native
        ours = torch.from_numpy(native.step(tokens, [native.begin(m) for m in memories]))
    theirs = _peer_logits(contest, prefixes)
    exact, ours, theirs = (each.log_softmax(-1) for each in (exact, ours, theirs))
    return float((ours - exact).abs().mean() / (theirs - exact).abs().mean())


def _peer_logits(contest: Contest, prefixes: list[list[int]]) -> Tensor:
    translator = next(peer.translator for peer in contest.peers if peer.precision == "int8")
    results = translator.translate_batch(
        [[contest.names[i] for i in row] for row in contest.source[: len(prefixes)].tolist()],
        target_prefix=[[contest.names[i] for i in prefix] for prefix in prefixes],
        beam_size=1,
        max_decoding_length=len(prefixes[0]) + 1,
        return_logits_vocab=True,
    )
    return torch.stack([torch.from_numpy(np.array(r.logits[0][-1])) for r in results])
