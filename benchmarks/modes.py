"""`modes`: what each way to decode costs, in the Marian-base shape on two threads.

Beam search takes sources and gives the best hypothesis of each, encoding included, beside
CTranslate2 in int8 with as many beams: 32 tokens of every target, none of which may end earlier.
The others run over memories that are there, in the loop as the engine drives it, but without a
service around it: tokens a second of sampling beside greedy decoding, with log-probabilities beside
without, and rows a second of a batch of every mode beside a batch of greedy ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from benchmarks import shapes
from benchmarks.contest import PIECE, PIECES, SOURCE_TOKENS, STEPS, WARM, Contest, Peer
from benchmarks.decode import peers
from benchmarks.measuring import Contestant, Match, Run, Sample, interleaved, times
from benchmarks.report import Report
from splitformer.generation import (
    Decoding,
    DraftMode,
    GenerationOptions,
    Target,
    Vocabulary,
    decoding_for,
    step,
)
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.tokenizer import SourcePiece

BEAMS = 5

Mode = tuple[str, dict[str, object], int]
"""Name, options, and how many of a batch of 32 rows are of it."""

MODES: tuple[Mode, ...] = (
    ("greedy", {}, 6),
    ("sampling", {"temperature": 0.8, "top_k": 50, "top_p": 0.9}, 6),
    ("min-p", {"min_p": 0.2}, 3),
    ("filters", {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3}, 3),
    ("stop", {"stop": ("never said",)}, 2),
    ("details", {"alternatives": 3, "alignments": True}, 2),
    ("beam", {"num_beams": BEAMS, "num_return_sequences": 2}, 2),
)
"""Beams are that many rows each: 6 + 6 + 3 + 3 + 2 + 2 + 2 * 5 = 32."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure.

    Attributes:
        batches: Sources of a beam search.
        rows: Rows of a step for all else; a multiple of 32.
        rounds: How often all are timed, at most.
        most_seconds: For all rounds but the first.
    """

    batches: tuple[int, ...]
    rows: int
    rounds: int
    most_seconds: float


QUICK = Plan((8, 32), 32, 12, 33.0)
FULL = Plan((1, 8, 32), 32, 30, 180.0)
MODES_TURNS = 2
"""In a round: they take far less time than beam search."""


class Loops:
    """Our decodings over the memories of a contest.

    Args:
        contest: Model, sources and peers.
        folder: The checkpoint, for its tokenizer.
    """

    def __init__(self, contest: Contest, folder: Path) -> None:
        self._contest = contest
        self._tokenizer = Checkpoint(folder).tokenizer
        size = contest.model.config.target_vocabulary_size
        self._vocabulary = Vocabulary(shapes.EOS, (shapes.PAD, shapes.UNKNOWN), size)
        self._pieces = tuple(SourcePiece(9, i, i + 1) for i in range(SOURCE_TOKENS))

    def contestant(self, every: Sequence[dict[str, object]]) -> Contestant:
        """One decoding per entry, with these options, over memories that are there."""

        def begin() -> list[Run]:
            self._take(self._over_memories(every, WARM))
            decodings = self._over_memories(every, STEPS)
            pieces: list[Run] = [partial(self._take, decodings, PIECE)] * (PIECES - 1)
            return [*pieces, partial(self._take, decodings)]

        return Contestant(begin)

    def searches(self, batch: int) -> Contestant:
        """Beam searches, sources included."""
        run = partial(self._from_sources, batch)
        return Contestant.whole(lambda: run(STEPS), lambda: run(WARM))

    def _from_sources(self, batch: int, count: int) -> None:
        sources = self._contest.source[:batch].tolist()
        memories = map(torch.from_numpy, self._contest.encoder.encode(sources))
        options: dict[str, object] = {"num_beams": BEAMS}
        self._take([self._decoding(memory, options, count) for memory in memories])

    def _over_memories(self, every: Sequence[dict[str, object]], count: int) -> list[Decoding]:
        memories = self._contest.memories
        return [
            self._decoding(memories[i % len(memories)], options, count, seed=i)
            for i, options in enumerate(every)
        ]

    def _decoding(
        self, memory: torch.Tensor, options: dict[str, object], count: int, seed: int = 0
    ) -> Decoding:
        state = self._contest.native.begin(memory)
        start, detokenizer = (shapes.START,), self._tokenizer.detokenizer()
        target = Target(start, state, detokenizer, count + 1, source=self._pieces)
        chosen = GenerationOptions(
            min_new_tokens=count,
            max_new_tokens=count,
            seed=seed,
            draft=DraftMode.OFF,
            **options,  # type: ignore[arg-type]
        )
        return decoding_for(target, chosen, count, self._vocabulary)

    def _take(self, decodings: list[Decoding], count: int = STEPS) -> None:
        """Take so many steps, or as many as are left."""
        for _ in range(count):
            if not (active := [each for each in decodings if not each.finished]):
                break
            assert not step(self._contest.native, active, self._vocabulary.never)
            for each in active:
                each.news()


def run(report: Report, cache: Path, quick: bool) -> None:
    """Measure and report `modes.*`."""
    plan = QUICK if quick else FULL
    folder = shapes.checkpoint_folder("marian-base", cache)
    contest = Contest(folder, cache, ("int8",), max(plan.rows, *plan.batches))
    loops = Loops(contest, folder)
    matches = {searching(batch): beams(contest, loops, batch) for batch in plan.batches}
    matches["modes"] = modes(contest, loops, plan.rows)
    found = interleaved(matches, plan.rounds, plan.most_seconds)
    for name, samples in found.items():
        report.detail(name, samples)
    for batch in plan.batches:
        beside_peer(report, batch, found[searching(batch)])
    beside_greedy(report, plan.rows, found["modes"])
    contest.close()


def searching(batch: int) -> str:
    """What figures of beam search begin with."""
    return f"modes.beam{BEAMS}.b{batch}"


def beams(contest: Contest, loops: Loops, batch: int) -> Match:
    """Beam search, ours and CTranslate2's."""
    peer = contest.fastest_peers(batch)[0]
    return Match.apart({"ours": loops.searches(batch), peer.name: translated(contest, peer, batch)})


def beside_peer(report: Report, batch: int, samples: Mapping[str, Sample]) -> None:
    """Report beam search."""
    ours, name = samples["ours"], searching(batch)
    report.figure(f"{name}.tokens_per_s", batch * STEPS / ours.median)
    report.figure(f"{name}.vs_ctranslate2", times(ours, samples[peers(samples)["int8"]]))


def translated(contest: Contest, peer: Peer, batch: int) -> Contestant:
    """CTranslate2's beam search over the same sources and to the same length."""
    sources = [[contest.names[i] for i in row] for row in contest.source[:batch].tolist()]

    def run(count: int) -> object:
        return peer.translator.translate_batch(
            sources,
            max_batch_size=-(-batch // peer.inter),
            beam_size=BEAMS,
            max_decoding_length=count,
            min_decoding_length=count,
            suppress_sequences=[["</s>"]],
            return_scores=True,
        )

    return Contestant.whole(lambda: run(STEPS), lambda: run(WARM), spins=True)


def modes(contest: Contest, loops: Loops, rows: int) -> Match:
    """The other modes beside greedy decoding, and log-probabilities beside none."""
    mixed = [options for _, options, many in MODES for _ in range(many * rows // 32)]
    sampling = next(options for name, options, _ in MODES if name == "sampling")
    engine = {
        "greedy": loops.contestant([{}] * rows),
        "sampling": loops.contestant([sampling] * rows),
        "whole row": loops.contestant([{"temperature": 0.8}] * rows),
        "mixed": loops.contestant(mixed),
    }
    bare = {
        "plain": contest.steps(rows),
        "logprobs": contest.steps(rows, log_probabilities=True),
    }
    return Match([engine, bare], MODES_TURNS)


def beside_greedy(report: Report, rows: int, samples: Mapping[str, Sample]) -> None:
    """Report the other modes."""
    greedy = samples["greedy"]
    report.figure("modes.greedy.tokens_per_s", rows * STEPS / greedy.median)
    report.figure("modes.sampling_vs_greedy", times(samples["sampling"], greedy))
    report.figure("modes.whole_row_vs_greedy", times(samples["whole row"], greedy))
    report.figure("modes.logprobs_vs_plain", times(samples["logprobs"], samples["plain"]))
    report.figure("modes.mixed_vs_greedy", times(samples["mixed"], greedy))
