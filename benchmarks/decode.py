"""`decode`: the loop alone, against the peers and the GEMM floor, in the Marian-base shape.

Every contestant takes 32 sequential steps of one row per sequence; each row chooses its own token
by argmax over the whole vocabulary, with the end token suppressed. A peer that cannot run steps
alone is measured by its time for 33 tokens minus its time for 1. The floor is the step's matrix
products alone, in the same precision and with the same threads, looped in C++: by our kernels or by
FBGEMM, whichever takes less time in a trial. It alternates with our loop every four steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks import shapes
from benchmarks.contest import STEPS, Contest
from benchmarks.measuring import Match, Sample, interleaved, times
from benchmarks.report import Report

SLOW_STEPS = 8
"""Hugging Face's steps in place of 32: the first ones, which are the fastest."""

ERROR_BATCH = 16
"""Sequences whose log-probabilities are compared with exact ones."""


@dataclass(frozen=True, slots=True)
class Scope:
    """How much to measure.

    Attributes:
        batches: Sequences per step.
        rounds: How often each contestant is timed, at most.
        most_seconds: For all rounds but the first.
        precisions: CTranslate2's.
        slow: The batch at which Hugging Face takes part, in rounds of its own.
        slow_rounds: How many.
    """

    batches: tuple[int, ...]
    rounds: int
    most_seconds: float
    precisions: tuple[str, ...] = ("int8",)
    slow: int = 0
    slow_rounds: int = 3


QUICK = Scope((1, 8, 32, 64), 20, 25.0, slow=32)
FULL = Scope((1, 2, 4, 8, 16, 32, 64), 40, 300.0, ("int8", "fp32"), slow=32, slow_rounds=5)


def run(report: Report, cache: Path, quick: bool) -> None:
    """Measure and report `decode.*`."""
    scope = QUICK if quick else FULL
    folder = shapes.checkpoint_folder("marian-base", cache)
    contest = Contest(folder, cache, scope.precisions, max(ERROR_BATCH, *scope.batches))
    measure(report, contest, "decode", scope)
    report.figure("decode.int8_error_vs_ctranslate2", int8_error_ratio(contest))
    contest.close()


def measure(report: Report, contest: Contest, prefix: str, scope: Scope) -> None:
    """Time all contestants at all batch sizes and report `PREFIX.bN.*`."""
    matches = {f"{prefix}.b{batch}": match(contest, batch) for batch in scope.batches}
    for name, samples in interleaved(matches, scope.rounds, scope.most_seconds).items():
        report.detail(name, samples)
        _figures(report, name, samples)
    if scope.slow:
        slow(report, contest, prefix, scope)


def match(contest: Contest, batch: int) -> Match:
    """Our loop with its products, and the peers; small batches more often."""
    companies = [{"ours": contest.steps(batch), "floor": contest.floor(batch)}]
    for peer in contest.fastest_peers(batch):
        companies.append({peer.name: contest.translate(peer, batch, STEPS + 1, 1)})
    return Match(companies, turns=turns(batch))


def turns(batch: int) -> int:
    """How often a batch size takes its turn in a round: the small ones take so much less time."""
    return 2 if batch <= 8 else 1


def slow(report: Report, contest: Contest, prefix: str, scope: Scope) -> None:
    """Time Hugging Face beside our loop."""
    name, batch = f"{prefix}.b{scope.slow}", scope.slow
    contestants = {
        "ours": contest.steps(batch),
        "hf": contest.generate(batch, SLOW_STEPS + 1, 1),
    }
    samples = interleaved({name: Match.apart(contestants)}, scope.slow_rounds)[name]
    report.detail(f"{name}.slow", samples)
    ratio = times(samples["ours"].whole, samples["hf"].first_less_second)
    report.figure(f"{name}.vs_hf", ratio * STEPS / SLOW_STEPS)


def _figures(report: Report, prefix: str, samples: Mapping[str, Sample]) -> None:
    ours = samples["ours"]
    report.figure(f"{prefix}.ms_per_step", 1000 * ours.median / STEPS)
    for precision, name in peers(samples).items():
        suffix = "" if precision == "int8" else f"_{precision}"
        theirs = samples[name].first_less_second
        report.figure(f"{prefix}.vs_ctranslate2{suffix}", times(ours.whole, theirs))
    report.figure(f"{prefix}.vs_floor", times(ours, samples["floor"]))


def peers(samples: Mapping[str, Sample]) -> dict[str, str]:
    """Return the names of CTranslate2's contestants by precision."""
    return {name.split("-")[1]: name for name in samples if name.startswith("ctranslate2-")}


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
