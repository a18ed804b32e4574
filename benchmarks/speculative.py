"""`speculative`: what guessing tokens brings, and what decoding without a loop costs.

The embedded model in int8, one target at a time. `speculative.*_speedup` is what a caller sees who
asks for speed: one stream through both services, from the call of Generate to its end, with guesses
as the server decides and the tokens of a step in one message, over the plain loop, of which a step
has one token. `*_speedup_by_token` is the same with a message for each token, as is usual.
`speculative.loop.*` is the loop alone in this process, on two threads over memories that are there,
with the Python of the loop but without that of the service. `*_rows_cost`: a step of so many rows
over one of a single row, as measured at start.

The sources are real: lines of this repository's documentation (`technical.txt`) and our own
sentences (`sentences.txt`), each translated into every language of the model. They are sorted by
the share of the target's tokens that also stand in the source, as the plain loop translates them;
targets that do not end by themselves are left out.

Parallel decoding is measured on the sentences, into German: chrF2 against our own translations
(`sentences.de.txt`), and its speed beside the loop's.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from benchmarks.measuring import in_turns, times
from benchmarks.one_stream import BY_STEP, BY_TOKEN, PLAIN as PLAIN_STREAM, OneStream
from benchmarks.report import Report
from benchmarks.servers import our_services
from benchmarks.texts import chrf, lines
from splitformer.generation import (
    DecodingMode,
    Drafting,
    DraftMode,
    GenerationOptions,
    Glossary,
    Target,
    Vocabulary,
    decoding_for,
    drafts_of,
    row_costs_of,
    step,
)
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.native_decoder import NativeDecoder
from splitformer.model.native_encoder import NativeEncoder
from splitformer.model.tokenizer import SourcePiece
from splitformer.serving import models

T = TypeVar("T")
THREADS, SERVED_THREADS, MOST_TOKENS = 2, 1, 160
ROWS = (2, 3, 5, 9, 17)
PLAIN = GenerationOptions(draft=DraftMode.OFF)
GUESSING = GenerationOptions()
JACOBI = GenerationOptions(draft=DraftMode.JACOBI)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure.

    Attributes:
        texts: Targets of each group, at most.
        rounds: How often each contestant is timed.
        served: Targets of each group that go through the services, at most.
        passes: Limits of parallel decoding; None: until nothing changes.
        model: Folder of the model; empty: the embedded one.
    """

    texts: int
    rounds: int
    served: int
    passes: tuple[int | None, ...]
    model: str = ""


QUICK = Plan(20, 8, 16, (1, 2, 4))
FULL = Plan(400, 5, 200, (1, 2, 3, 4, 6, 8, 16, None))


@dataclass(frozen=True, slots=True)
class Job:
    """One text into one language."""

    text: str
    language: str
    pieces: tuple[SourcePiece, ...]
    memory: torch.Tensor


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job."""

    target: Target
    steps: int
    drafted: int
    kept: int

    def overlap(self, job: Job) -> float:
        """Share of the target's tokens that also stand in the source."""
        source = {piece.id for piece in job.pieces}
        produced = [token.id in source for token in self.target.produced]
        return sum(produced) / max(1, len(produced))


class Bench:
    """The model, and how it is decoded."""

    def __init__(self, folder: str) -> None:
        torch.set_num_threads(THREADS)
        self.checkpoint: Checkpoint = models.open_checkpoint(folder)
        description, whole = self.checkpoint.description, self.checkpoint.load()
        self._encoder = NativeEncoder(whole.encoder, "int8", THREADS)
        self._decoder = NativeDecoder(whole.decoder, "int8", THREADS)
        self.languages = description.languages.targets
        size = description.architecture.target_vocabulary_size
        self._vocabulary = Vocabulary(description.eos_id, description.never_generated, size)
        self._glossary = Glossary(self.checkpoint.tokenizer, self._vocabulary)
        self.drafting = Drafting(
            row_costs_of(self._decoder),
            lossless=True,
            token_kinds=self.checkpoint.tokenizer.token_kinds(size),
            unusable=frozenset((*self._vocabulary.never, description.eos_id)),
        )

    def close(self) -> None:
        """Let the packed weights go."""
        self._encoder.close()
        self._decoder.close()

    def jobs(self, texts: Iterable[tuple[str, str]]) -> list[Job]:
        """Encode texts, each for a language."""
        jobs = []
        for text, language in texts:
            pieces = tuple(self.checkpoint.encode_source(text))
            memory = torch.from_numpy(self._encoder.encode([[piece.id for piece in pieces]])[0])
            jobs.append(Job(text, language, pieces, memory))
        return jobs

    def decode(self, job: Job, options: GenerationOptions) -> Outcome:
        """Decode one target."""
        start = self.checkpoint.description.languages.starts[job.language]
        detokenizer = self.checkpoint.tokenizer.detokenizer()
        positions = self.checkpoint.description.architecture.max_positions
        target = Target(start, self._decoder.begin(job.memory), detokenizer, positions)
        target.source, target.source_text = job.pieces, job.text
        wanted = self._glossary.wanted(options, target)
        limit = min(MOST_TOKENS, positions)
        decoding = decoding_for(
            target, options, limit, self._vocabulary, drafting=self.drafting, wanted=wanted
        )
        steps = 0
        while not decoding.finished:
            if failures := step(self._decoder, [decoding], self._vocabulary.never):
                raise failures[0][1]
            decoding.news()
            steps += 1
        return Outcome(target, steps, *drafts_of(decoding))


def run(report: Report, cache: Path, quick: bool) -> None:
    """Measure and report `speculative.*`."""
    plan = QUICK if quick else FULL
    bench = Bench(plan.model)
    groups, differing = _groups(bench, plan.texts), 0
    cache.mkdir(parents=True, exist_ok=True)
    with our_services(plan.model, cache, SERVED_THREADS) as services:
        served = OneStream(services.encoder, services.decoder, MOST_TOKENS)
        for name, group in groups.items():
            jobs = _spread(group, plan.served)
            taken = served.timed(jobs, (PLAIN_STREAM, BY_TOKEN, BY_STEP), plan.rounds)
            for label, way in (("speedup", BY_STEP), ("speedup_by_token", BY_TOKEN)):
                report.figure(f"speculative.{name}_{label}", times(taken[way], taken[PLAIN_STREAM]))
        differing += served.differing
    for rows in ROWS:
        costs = bench.drafting.costs
        report.figure(f"speculative.loop.{rows}_rows_cost", costs.step(rows) / costs.step(1))
    for name, group in groups.items():
        differing += _measure(report, bench, name, group, plan)
    report.figure("speculative.differing_tokens", differing)
    _parallel(report, bench, plan)
    bench.close()


def _groups(bench: Bench, most: int) -> dict[str, list[Job]]:
    """Sort what the model translates by how much of it stands in the source."""
    every = [*lines("sentences.txt"), *lines("technical.txt")]
    texts = [(line, language) for line in every for language in bench.languages]
    groups: dict[str, list[Job]] = {"overlap60": [], "overlap30": [], "plain": []}
    for job in bench.jobs(_spread(texts, 4 * most)):
        outcome = bench.decode(job, PLAIN)
        if outcome.target.end is None:
            continue
        overlap = outcome.overlap(job)
        if overlap >= 0.6:
            groups["overlap60"].append(job)
        if overlap >= 0.3:
            groups["overlap30"].append(job)
        else:
            groups["plain"].append(job)
    return {name: _spread(group, most) for name, group in groups.items()}


def _spread(some: Sequence[T], most: int) -> list[T]:
    """Return at most `most` of them, evenly spread."""
    count = min(most, len(some))
    return [some[i * len(some) // count] for i in range(count)]


def _measure(report: Report, bench: Bench, name: str, jobs: list[Job], plan: Plan) -> int:
    """Time the plain and the guessing loop over a group; return the tokens in which they differ."""
    ways = {"plain": PLAIN, "guessing": GUESSING, "jacobi": JACOBI}
    outcomes: dict[tuple[str, int], Outcome] = {}

    def run(number: int, way: str) -> float:
        began = time.perf_counter()
        outcomes[way, number] = bench.decode(jobs[number], ways[way])
        return time.perf_counter() - began

    taken = in_turns(range(len(jobs)), list(ways), plan.rounds, run)
    plain, guessed, iterated = ([outcomes[w, n] for n in range(len(jobs))] for w in ways)
    tokens = sum(len(each.target.produced) + 1 for each in plain)
    drafted, kept = sum(g.drafted for g in guessed), sum(g.kept for g in guessed)
    overlaps = [each.overlap(job) for each, job in zip(plain, jobs, strict=True)]
    report.figure(f"speculative.{name}.texts", len(jobs))
    report.figure(f"speculative.{name}.overlap", statistics.mean(overlaps))
    report.figure(f"speculative.{name}.tokens_per_step", tokens / sum(g.steps for g in guessed))
    report.figure(f"speculative.{name}.drafted_per_token", drafted / tokens)
    report.figure(f"speculative.{name}.accepted", kept / drafted if drafted else 0.0)
    report.figure(f"speculative.loop.{name}_speedup", times(taken["guessing"], taken["plain"]))
    report.figure(f"speculative.loop.{name}_jacobi_speedup", times(taken["jacobi"], taken["plain"]))
    return sum(
        _differing(a.target, b.target)
        for others in (guessed, iterated)
        for a, b in zip(plain, others, strict=True)
    )


def _differing(a: Target, b: Target) -> int:
    """Count tokens that differ in id, text or log-probability; ends count as tokens."""
    ours, theirs = [*a.produced, a.end], [*b.produced, b.end]
    differing = sum(x != y for x, y in zip(ours, theirs, strict=False))
    return differing + abs(len(ours) - len(theirs))


def _parallel(report: Report, bench: Bench, plan: Plan) -> None:
    """Parallel decoding beside the loop: chrF2 and speed."""
    jobs = bench.jobs((line, "de") for line in lines("sentences.txt"))
    references = lines("sentences.de.txt")
    loop, seconds = _translated(bench, jobs, PLAIN, plan.rounds)
    report.figure("speculative.loop.chrf", chrf(loop, references))
    for passes in plan.passes:
        options = replace(GUESSING, mode=DecodingMode.PARALLEL, max_passes=passes)
        texts, taken = _translated(bench, jobs, options, 1)
        name = f"speculative.parallel_{'unlimited' if passes is None else passes}"
        report.figure(f"{name}.chrf", chrf(texts, references))
        report.figure(f"{name}.speed_vs_loop", seconds / taken)


def _translated(
    bench: Bench, jobs: Sequence[Job], options: GenerationOptions, rounds: int
) -> tuple[list[str], float]:
    """Return all texts, and the seconds that the fastest round took."""
    fastest = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        outcomes = [bench.decode(job, options) for job in jobs]
        fastest = min(fastest, time.perf_counter() - began)
    return [outcome.target.text for outcome in outcomes], fastest
