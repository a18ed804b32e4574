"""`modes`: what each way to decode costs, in the Marian-base shape on two threads.

Beam search takes sources and gives the best hypothesis of each, encoding included, beside
CTranslate2 in int8 with as many beams: 32 tokens of every target, none of which may end earlier.
The others run over memories that are there, in the loop as the engine drives it, but without a
service around it: tokens a second of sampling beside greedy decoding, with log-probabilities beside
without, and rows a second of a batch of every mode beside a batch of greedy ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from benchmarks import shapes
from benchmarks.contest import SOURCE_TOKENS, STEPS, WARM, Contest, Peer
from benchmarks.decode import peers, times
from benchmarks.measuring import Contestant, Report, interleaved
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
        rounds: How often each contestant is timed, at most.
        most_seconds: Per comparison, for all rounds but the first.
    """

    batches: tuple[int, ...]
    rows: int
    rounds: int
    most_seconds: float


QUICK = Plan((8, 32), 32, 5, 8.0)
FULL = Plan((1, 8, 32), 32, 9, 60.0)


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
        run = partial(self._over_memories, every)
        return Contestant(lambda: run(STEPS), lambda: run(WARM))

    def searches(self, batch: int) -> Contestant:
        """Beam searches, sources included."""
        run = partial(self._from_sources, batch)
        return Contestant(lambda: run(STEPS), lambda: run(WARM))

    def _from_sources(self, batch: int, count: int) -> None:
        sources = self._contest.source[:batch].tolist()
        memories = map(torch.from_numpy, self._contest.encoder.encode(sources))
        options: dict[str, object] = {"num_beams": BEAMS}
        self._run([self._decoding(memory, options, count) for memory in memories])

    def _over_memories(self, every: Sequence[dict[str, object]], count: int) -> None:
        memories = self._contest.memories
        self._run(
            [
                self._decoding(memories[i % len(memories)], options, count, seed=i)
                for i, options in enumerate(every)
            ]
        )

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

    def _run(self, decodings: list[Decoding]) -> None:
        never = self._vocabulary.never
        while active := [each for each in decodings if not each.finished]:
            assert not step(self._contest.native, active, never)
            for each in active:
                each.news()


def run(report: Report, cache: Path, quick: bool) -> None:
    """Measure and report `modes.*`."""
    plan = QUICK if quick else FULL
    folder = shapes.checkpoint_folder("marian-base", cache)
    contest = Contest(folder, cache, ("int8",), max(plan.rows, *plan.batches))
    loops = Loops(contest, folder)
    for batch in plan.batches:
        beside_peer(report, contest, loops, batch, plan)
    beside_greedy(report, contest, loops, plan)
    contest.close()


def beside_peer(report: Report, contest: Contest, loops: Loops, batch: int, plan: Plan) -> None:
    """Time beam search, ours and CTranslate2's."""
    contestants = {"ours": loops.searches(batch)}
    for peer in contest.fastest_peers(batch):
        contestants[peer.name] = translated(contest, peer, batch)
    samples = interleaved(contestants, plan.rounds, plan.most_seconds)
    name = f"modes.beam{BEAMS}.b{batch}"
    report.detail(name, samples)
    report.figure(f"{name}.tokens_per_s", batch * STEPS / samples["ours"].median)
    theirs = [samples[peer].seconds for peer in peers(samples)["int8"]]
    report.figure(f"{name}.vs_ctranslate2", min(times(samples["ours"].seconds, t) for t in theirs))


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

    return Contestant(lambda: run(STEPS), lambda: run(WARM))


def beside_greedy(report: Report, contest: Contest, loops: Loops, plan: Plan) -> None:
    """Time the other modes beside greedy decoding."""
    rows, mixed = plan.rows, [o for _, o, many in MODES for _ in range(many * plan.rows // 32)]
    sampling = next(options for name, options, _ in MODES if name == "sampling")
    contestants = {
        "greedy": loops.contestant([{}] * rows),
        "sampling": loops.contestant([sampling] * rows),
        "whole row": loops.contestant([{"temperature": 0.8}] * rows),
        "mixed": loops.contestant(mixed),
        "plain": bare(contest, rows, log_probabilities=False),
        "logprobs": bare(contest, rows, log_probabilities=True),
    }
    samples = interleaved(contestants, plan.rounds, plan.most_seconds * 2)
    report.detail("modes", samples)
    seconds = {name: sample.seconds for name, sample in samples.items()}
    report.figure("modes.greedy.tokens_per_s", rows * STEPS / samples["greedy"].median)
    report.figure("modes.sampling_vs_greedy", times(seconds["sampling"], seconds["greedy"]))
    report.figure("modes.whole_row_vs_greedy", times(seconds["whole row"], seconds["greedy"]))
    report.figure("modes.logprobs_vs_plain", times(seconds["logprobs"], seconds["plain"]))
    report.figure("modes.mixed_vs_greedy", times(seconds["mixed"], seconds["greedy"]))


def bare(contest: Contest, rows: int, log_probabilities: bool) -> Contestant:
    """The loop without anything around it, with log-probabilities or without."""

    def run(count: int) -> None:
        states = [contest.native.begin(memory) for memory in contest.memories[:rows]]
        tokens = [[shapes.START]] * rows
        for _ in range(count):
            advanced = contest.native.advance(
                tokens, states, never=(shapes.EOS,), log_probabilities=log_probabilities
            )
            tokens = [[token] for token in advanced.ids]

    return Contestant(lambda: run(STEPS), lambda: run(WARM))
