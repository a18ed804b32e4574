"""`families`: published models in their real sizes, with random weights, as folders.

Against CTranslate2 int8, which converts the same models itself, and Transformers in float32: 24
source tokens, or 30 s of audio, 32 target tokens, greedy, end token suppressed, two threads. Memory
is the peak of a process that has all that a service has, loads a half and answers once; of one that
loads both halves; and of one with CTranslate2 alone. Briefly: OPUS-MT base.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import torch
from numpy.typing import NDArray
from transformers import GenerationMixin, WhisperForConditionalGeneration

from benchmarks.contest import SOURCE_TOKENS, STEPS, THREADS, WARM
from benchmarks.decode import times
from benchmarks.family_models import MODELS, MOST_STREAMS, converted, folder_of
from benchmarks.measuring import Contestant, Report, Sample, interleaved
from benchmarks.peers.ctranslate2_model import token_names
from benchmarks.whisper_model import BINS, FRAMES, START, marks
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.encoding import Features, Source
from splitformer.model.native_decoder import NativeDecoder
from splitformer.model.native_encoder import NativeEncoder
from splitformer.model.stepping import Asked

QUICK, FULL = ("opus-mt",), tuple(MODELS)
ROUNDS, QUICK_SECONDS, MOST_SECONDS = 5, 2.0, 12.0
SLOW_TOKENS = 4
"""Transformers' target tokens in place of 32."""

MIB = 2**20
PARTS = ("encoder", "decoder", "both", "ctranslate2")


def run(report: Report, cache: Path, quick: bool) -> None:
    """Measure and report `families.MODEL.*`."""
    for name in QUICK if quick else FULL:
        measure(report, name, cache, QUICK_SECONDS if quick else MOST_SECONDS)


def measure(report: Report, name: str, cache: Path, most_seconds: float) -> None:
    """Measure one model; what it takes is made first where it is not there."""
    torch.set_num_threads(THREADS)
    folder, peer = folder_of(name, cache), converted(name, cache)
    measure_memory(report, name, folder, peer)
    ours = Ours(folder)
    theirs = TheirsOfAudio(peer) if ours.hears else Theirs(peer, ours.vocabulary)
    for batch in MODELS[name].streams:
        measure_speed(report, name, batch, ours, theirs, most_seconds)
    ours.close()


def measure_memory(report: Report, name: str, folder: Path, peer: Path) -> None:
    """Report peaks of memory."""
    for part in PARTS:
        size = peak_bytes(part, peer if part == "ctranslate2" else folder)
        report.figure(f"families.{name}.{part}.peak_mib", size / MIB)


def measure_speed(
    report: Report,
    name: str,
    batch: int,
    ours: Ours,
    theirs: Theirs | TheirsOfAudio,
    most_seconds: float,
) -> None:
    """Report times of so many streams."""
    samples = interleaved(
        {
            "ours": ours.request(batch, STEPS),
            "ours-first": ours.request(batch, 1),
            "ctranslate2": theirs.request(batch, STEPS),
            "ctranslate2-first": theirs.request(batch, 1),
        },
        ROUNDS,
        most_seconds,
    )
    if batch == 1:
        samples |= interleaved({"hf": transformers(name)}, 1)
    report.detail(f"families.{name}.b{batch}", samples)
    _figures(report, f"families.{name}.b{batch}", batch, samples)


class Ours:
    """Both native halves of a folder, in int8."""

    def __init__(self, folder: Path) -> None:
        checkpoint = Checkpoint(folder)
        description = checkpoint.description
        self._never = (description.eos_id, *description.never_generated)
        self._start = next(iter(description.languages.starts.values()))
        self.hears = description.speech is not None
        if self.hears:
            self._start = tuple(marks()[mark] for mark in START)
        self._encoder = NativeEncoder(checkpoint.encoder_half(), "int8", THREADS)
        self._decoder = NativeDecoder(checkpoint.decoder_half(), "int8", THREADS)
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

    def request(self, batch: int, count: int) -> Contestant:
        """Encode, project, and decode `count` tokens of every target."""
        warm = 1 if self.hears else batch  # an encoder of audio takes long
        return Contestant(lambda: self._run(batch, count), lambda: self._run(warm, WARM))

    def _run(self, batch: int, count: int) -> None:
        memories = self._encoder.encode(self._sources[:batch])
        states = [self._decoder.begin(torch.from_numpy(memory)) for memory in memories]
        tokens = [[*self._start] for _ in states]
        for _ in range(count):
            asked = Asked()
            ids = self._decoder.advance(tokens, states, self._never, asked).ids
            tokens = [[token] for token in ids]


class Theirs:
    """CTranslate2 in int8; its sequences share one pool of threads."""

    def __init__(self, peer: Path, size: int) -> None:
        self._translator = ctranslate2.Translator(
            str(peer), compute_type="int8", inter_threads=1, intra_threads=THREADS
        )
        names = token_names(size)
        self._sources = [[names[i] for i in row] for row in sources(size - 1)]

    def request(self, batch: int, count: int) -> Contestant:
        """Decode `count` tokens of every target, encoding included."""
        return Contestant(lambda: self._run(batch, count), lambda: self._run(batch, WARM))

    def _run(self, batch: int, count: int) -> object:
        return self._translator.translate_batch(
            self._sources[:batch],
            beam_size=1,
            max_decoding_length=count,
            min_decoding_length=count,
            suppress_sequences=[["</s>"]],
        )


class TheirsOfAudio:
    """The same of a model that hears."""

    def __init__(self, peer: Path) -> None:
        self._model = ctranslate2.models.Whisper(
            str(peer), compute_type="int8", inter_threads=1, intra_threads=THREADS
        )
        features = np.stack([audio().T] * MOST_STREAMS)  # (B, bins, frames)
        self._features = np.ascontiguousarray(features)

    def request(self, batch: int, count: int) -> Contestant:
        """Decode `count` tokens of every target, encoding included."""
        return Contestant(lambda: self._run(batch, count), lambda: self._run(1, WARM))

    def _run(self, batch: int, count: int) -> object:
        return self._model.generate(
            ctranslate2.StorageView.from_array(self._features[:batch]),
            [list(START)] * batch,
            beam_size=1,
            # It takes half of it, or what the start leaves, whichever is less.
            max_length=max(2 * count, count + len(START)) if count > 3 else count + len(START),
            suppress_blank=False,
            suppress_tokens=[marks()["<|endoftext|>"]],
        )


def transformers(name: str) -> Contestant:
    """Transformers in float32: one target of a few tokens."""
    model = MODELS[name].build().eval()
    if isinstance(model, WhisperForConditionalGeneration):
        given: dict[str, Any] = {"input_features": torch.from_numpy(audio().T.copy())[None]}
    else:
        given = {"input_ids": torch.tensor(sources(model.config.vocab_size)[:1])}

    def generate(count: int) -> object:
        return GenerationMixin.generate(
            model,
            **given,
            do_sample=False,
            num_beams=1,
            max_new_tokens=count,
            min_new_tokens=count,
        )

    return Contestant(lambda: generate(SLOW_TOKENS), lambda: generate(1))


def sources(size: int) -> list[list[int]]:
    """Return random sources."""
    drawn = np.random.default_rng(0).integers(8, size, (MOST_STREAMS, SOURCE_TOKENS))
    rows: list[list[int]] = drawn.tolist()
    return rows


def audio() -> NDArray[np.float32]:
    """Return features of 30 s, (frames, bins)."""
    drawn = np.random.default_rng(0).standard_normal((FRAMES, BINS))
    return drawn.astype(np.float32)


def peak_bytes(part: str, folder: Path) -> int:
    """Return the most resident memory of a process that loads a part and uses it once."""
    command = [sys.executable, "-m", "benchmarks.peers.part_of_model", part, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


def _figures(report: Report, prefix: str, batch: int, samples: Mapping[str, Sample]) -> None:
    ours, theirs = samples["ours"], samples["ctranslate2"]
    report.figure(f"{prefix}.tokens_per_second", batch * STEPS / ours.median)
    report.figure(f"{prefix}.vs_ctranslate2", times(ours.seconds, theirs.seconds))
    first = samples["ours-first"]
    report.figure(f"{prefix}.ttft_ms", 1000 * first.median)
    ratio = times(first.seconds, samples["ctranslate2-first"].seconds)
    report.figure(f"{prefix}.ttft_vs_ctranslate2", ratio)
    if "hf" in samples:
        per_token = statistics.median(samples["hf"].seconds) / SLOW_TOKENS
        report.figure(f"{prefix}.vs_hf", per_token / (ours.median / STEPS))
