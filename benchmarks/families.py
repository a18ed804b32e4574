"""`families`: published models in their real sizes, with random weights, as folders.

Against CTranslate2 int8, which converts the same models itself, and Transformers in float32: 24
source tokens, or 30 s of audio, 32 target tokens, greedy, end token suppressed, two threads. Memory
is the peak of a process that has all that a service has, loads a half and answers once; of one that
loads both halves; and of one with CTranslate2 alone. Briefly: OPUS-MT base.

All models take many minutes; `--only families.t5-base.b8` measures a part of them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.contest import STEPS, THREADS, WARM
from benchmarks.family_models import MODELS, MOST_STREAMS, audio, converted, folder_of, sources
from benchmarks.family_peers import Audio, CTranslate2, Text, fastest_layout, transformers, turns
from benchmarks.measuring import Contestant, Match, Sample, interleaved, times
from benchmarks.report import Report
from benchmarks.whisper_model import START, marks
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.encoding import Features, Source
from splitformer.model.kept import Kept
from splitformer.model.native_decoder import NativeDecoder
from splitformer.model.native_encoder import NativeEncoder

QUICK, FULL = ("opus-mt",), tuple(MODELS)
ROUNDS, SLOW_ROUNDS, QUICK_SECONDS, MOST_SECONDS = 20, 5, 5.0, 40.0

MIB = 2**20
PARTS = ("encoder", "decoder", "both", "ctranslate2")


def run(report: Report, cache: Path, quick: bool) -> None:
    """Measure and report `families.MODEL.*`."""
    for name in QUICK if quick else FULL:
        prefix = f"families.{name}"
        if report.wants(f"{prefix}.memory"):
            measure_memory(report, name, cache)
        for batch in MODELS[name].streams:
            if report.wants(f"{prefix}.b{batch}"):
                seconds = QUICK_SECONDS if quick else MOST_SECONDS
                measure_speed(report, name, batch, cache, seconds)


def measure_memory(report: Report, name: str, cache: Path) -> None:
    """Report peaks of memory; what they take is made first where it is not there."""
    folder, peer = folder_of(name, cache), converted(name, cache)
    for part in PARTS:
        size = peak_bytes(part, peer if part == "ctranslate2" else folder)
        report.figure(f"families.{name}.memory.{part}_mib", size / MIB)


def measure_speed(report: Report, name: str, batch: int, cache: Path, most_seconds: float) -> None:
    """Report times of so many streams; what they take is made first where it is not there."""
    ours, prefix = Ours(folder_of(name, cache)), f"families.{name}.b{batch}"
    if any(report.wants(f"{prefix}.{part}") for part in ("tokens", "ttft", "vs_ctranslate2")):
        trial = min(batch, 2) if ours.hears else batch  # an encoder of audio takes long
        theirs = fastest_layout(partial(_theirs, converted(name, cache), ours), trial)
        samples = _against_ctranslate2(ours, theirs, batch, most_seconds)
        report.detail(f"{prefix}.vs_ctranslate2", samples)
        _figures(report, prefix, batch, samples)
    if report.wants(f"{prefix}.vs_hf"):
        torch.set_num_threads(THREADS)  # CTranslate2 has set OpenMP's, which are torch's too
        hf = transformers(folder_of(name, cache), ours.hears, batch)
        contestants = {"ours": ours.turns(batch, STEPS), "hf": hf}
        samples = interleaved({prefix: Match.apart(contestants)}, SLOW_ROUNDS, most_seconds)[prefix]
        report.detail(f"{prefix}.vs_hf", samples)
        report.figure(f"{prefix}.vs_hf", times(samples["ours"], samples["hf"]))
    ours.close()


def _against_ctranslate2(
    ours: Ours, theirs: CTranslate2, batch: int, most_seconds: float
) -> dict[str, Sample]:
    warm = 1 if ours.hears else batch  # as ours
    contestants = {
        "ours": ours.turns(batch, STEPS),
        "ours-first": ours.turns(batch, 1),
        "ctranslate2": turns(theirs, batch, STEPS, warm),
        "ctranslate2-first": turns(theirs, batch, 1, warm),
    }
    return interleaved({"": Match.apart(contestants)}, ROUNDS, most_seconds)[""]


def _theirs(folder: Path, ours: Ours, inter: int) -> CTranslate2:
    return Audio(folder, inter) if ours.hears else Text(folder, ours.vocabulary, inter)


class Ours:
    """Both native halves of a folder, in int8."""

    def __init__(self, folder: Path) -> None:
        checkpoint = Checkpoint(folder, Kept.of(folder, "auto"))
        description = checkpoint.description
        self._never = (description.eos_id, *description.never_generated)
        self._start = next(iter(description.languages.starts.values()))
        self.hears = description.speech is not None
        if self.hears:
            self._start = tuple(marks()[mark] for mark in START)
        self._encoder = NativeEncoder(checkpoint.half("encoder", "int8"), "int8", THREADS)
        self._decoder = NativeDecoder(checkpoint.half("decoder", "int8"), "int8", THREADS)
        self.vocabulary = description.architecture.source_vocabulary_size
        self._sources: Sequence[Source] = (
            [Features(audio()) for _ in range(MOST_STREAMS)]
            if self.hears
            else sources(self.vocabulary)
        )

    def close(self) -> None:
        """Let the packed weights go."""
        self._encoder.close()
        self._decoder.close()

    def turns(self, batch: int, count: int) -> Contestant:
        """Encode, project, and decode `count` tokens of every target."""
        warm = 1 if self.hears else batch  # an encoder of audio takes long
        return Contestant.whole(lambda: self._run(batch, count), lambda: self._run(warm, WARM))

    def _run(self, batch: int, count: int) -> None:
        memories = self._encoder.encode(self._sources[:batch])
        states = [self._decoder.begin(memory) for memory in memories]
        tokens = [[*self._start] for _ in states]
        for _ in range(count):
            ids = self._decoder.advance(tokens, states, self._never).ids
            tokens = [[token] for token in ids]


def peak_bytes(part: str, folder: Path) -> int:
    """Return the most resident memory of a process that loads a part and uses it once."""
    command = [sys.executable, "-m", "benchmarks.peers.part_of_model", part, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


def _figures(report: Report, prefix: str, batch: int, samples: Mapping[str, Sample]) -> None:
    ours, theirs = samples["ours"], samples["ctranslate2"]
    report.figure(f"{prefix}.tokens_per_second", batch * STEPS / ours.median)
    report.figure(f"{prefix}.vs_ctranslate2", times(ours, theirs))
    first = samples["ours-first"]
    report.figure(f"{prefix}.ttft_ms", 1000 * first.median)
    ratio = times(first, samples["ctranslate2-first"])
    report.figure(f"{prefix}.ttft_vs_ctranslate2", ratio)
