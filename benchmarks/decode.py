"""`decode`: the loop alone, against the peers and the GEMM floor.

Every contestant takes 32 sequential steps of one row per sequence; each row chooses its own token
by argmax over the whole vocabulary, with the end token suppressed. A peer that cannot run steps
alone is measured by its time for 33 tokens minus its time for 1. The floor is the step's matrix
products alone, in the same precision and with the same threads.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import torch
from torch import Tensor

from benchmarks import shapes
from benchmarks.measuring import Report, Sample, interleaved
from benchmarks.peers import huggingface_model
from benchmarks.peers.ctranslate2_model import convert, token_names
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.native_decoder import NativeDecoder

SOURCE_TOKENS, STEPS, THREADS = 24, 32, 2
LAYOUTS = ((1, 2), (2, 1))
"""CTranslate2's (inter_threads, intra_threads); the better one counts."""


@dataclass(frozen=True, slots=True)
class Scope:
    """How much to measure."""

    batches: tuple[int, ...]
    rounds: int


QUICK = Scope((1, 8, 32, 64), 3)
FULL = Scope((1, 2, 4, 8, 16, 32, 64), 9)


class Contest:
    """All contestants over the same weights and sources."""

    def __init__(self, folder: Path, cache: Path) -> None:
        torch.set_num_threads(THREADS)
        self.model = Checkpoint(folder).load()
        config = self.model.config
        self.native = NativeDecoder(self.model.decoder, "int8", THREADS)
        peer = convert(self.model, cache / f"{folder.name}-ct2-int8", "int8")
        self.translators = {
            f"ctranslate2-{inter}x{intra}": ctranslate2.Translator(
                str(peer), compute_type="int8", inter_threads=inter, intra_threads=intra
            )
            for inter, intra in LAYOUTS
        }
        self.huggingface = huggingface_model.convert(
            self.model, shapes.START, shapes.EOS, shapes.PAD
        )
        self.names = token_names(config.target_vocabulary_size)
        numbers = np.random.default_rng(0)
        self.source = torch.from_numpy(
            numbers.integers(4, config.source_vocabulary_size, (64, SOURCE_TOKENS))
        )

    def memories(self, batch: int) -> Tensor:
        """Encode the first sources: (batch, S, D)."""
        lengths = torch.full((batch,), SOURCE_TOKENS)
        with torch.inference_mode():
            return self.model.encode(self.source[:batch], lengths)

    def steps(self, batch: int) -> Callable[[], object]:
        """Our loop over memories that have been encoded and projected."""
        memories = self.memories(batch)
        return lambda: self.loop([self.native.begin(memory) for memory in memories], STEPS)

    def begin(self, batch: int) -> Callable[[], object]:
        """What `steps` does before its first step."""
        memories = self.memories(batch)
        return lambda: [self.native.begin(memory) for memory in memories]

    def loop(self, states: list[Any], count: int) -> list[list[int]]:
        """Take `count` steps."""
        tokens = [[shapes.START]] * len(states)
        produced = []
        for _ in range(count):
            advanced = self.native.advance(
                tokens, states, never=(shapes.EOS,), log_probabilities=False
            )
            tokens = [[token] for token in advanced.ids]
            produced.append(advanced.ids)
        return produced

    def translate(self, name: str, batch: int, count: int) -> Callable[[], object]:
        """CTranslate2: `count` tokens of every target, encoding included."""
        sources = [[self.names[i] for i in row] for row in self.source[:batch].tolist()]
        translator = self.translators[name]
        inter = int(name.split("-")[1].split("x", maxsplit=1)[0])
        return lambda: translator.translate_batch(
            sources,
            max_batch_size=-(-batch // inter),
            beam_size=1,
            max_decoding_length=count,
            min_decoding_length=count,
            suppress_sequences=[["</s>"]],
        )

    def generate(self, batch: int, count: int) -> Callable[[], object]:
        """Hugging Face, float32: `count` tokens of every target, encoding included."""
        source = self.source[:batch]
        return lambda: self.huggingface.generate(
            input_ids=source,
            do_sample=False,
            num_beams=1,
            max_new_tokens=count,
            min_new_tokens=count,
        )


def run(report: Report, cache: Path, quick: bool) -> None:
    """Measure and report `decode.*` for the Marian-base shape."""
    scope = QUICK if quick else FULL
    contest = Contest(shapes.checkpoint_folder("marian-base", cache), cache)
    for batch in scope.batches:
        _measure(report, contest, batch, scope.rounds)
    report.figure("decode.int8_error_vs_ctranslate2", int8_error_ratio(contest, cache))


def _measure(report: Report, contest: Contest, batch: int, rounds: int) -> None:
    contestants: dict[str, Callable[[], object]] = {
        "ours": contest.steps(batch),
        "begin": contest.begin(batch),
        "floor": lambda: contest.native.plan.products(batch, STEPS),
    }
    for name in contest.translators:
        contestants[f"{name}-33"] = contest.translate(name, batch, STEPS + 1)
        contestants[f"{name}-1"] = contest.translate(name, batch, 1)
    samples = interleaved(contestants, rounds)
    if batch == 32:  # far slower than the others: one round is enough
        slow = {"hf-33": contest.generate(batch, STEPS + 1), "hf-1": contest.generate(batch, 1)}
        samples |= interleaved(slow, 1)
    report.detail(f"decode.b{batch}", samples)
    _figures(report, batch, samples)


def _figures(report: Report, batch: int, samples: Mapping[str, Sample]) -> None:
    ours = _minus(samples, "ours", "begin")
    theirs = [_minus(samples, f"{name}-33", f"{name}-1") for name in _peers(samples)]
    prefix = f"decode.b{batch}"
    report.figure(f"{prefix}.ms_per_step", 1000 * statistics.median(ours) / STEPS)
    report.figure(f"{prefix}.vs_ctranslate2", min(_times(ours, each) for each in theirs))
    report.figure(f"{prefix}.vs_floor", 1 / _times(samples["floor"].seconds, ours))
    if "hf-33" in samples:
        theirs_once = _minus(samples, "hf-33", "hf-1")
        report.figure(f"{prefix}.vs_hf", theirs_once[0] / statistics.median(ours))


def _peers(samples: Mapping[str, Sample]) -> list[str]:
    return [
        name.removesuffix("-33")
        for name in samples
        if name.startswith("ctranslate2-") and name.endswith("-33")
    ]


def _minus(samples: Mapping[str, Sample], whole: str, part: str) -> tuple[float, ...]:
    pairs = zip(samples[whole].seconds, samples[part].seconds, strict=True)
    return tuple(a - b for a, b in pairs)


def _times(ours: tuple[float, ...], theirs: tuple[float, ...]) -> float:
    """How many times faster we are: the median of the rounds' own ratios."""
    return statistics.median(b / a for a, b in zip(ours, theirs, strict=True))


def int8_error_ratio(contest: Contest, cache: Path) -> float:
    """Mean absolute error of log-probabilities against float32, ours over CTranslate2's.

    Both continue the same sources after the same eight random target tokens; our encoder runs in
    float32, as our service's does.
    """
    size, batch = contest.model.config.target_vocabulary_size, 16
    numbers = np.random.default_rng(1)
    prefixes = numbers.integers(4, size, (batch, 8)).tolist()
    tokens = [[shapes.START, *prefix] for prefix in prefixes]
    memories = contest.memories(batch)
    with torch.inference_mode():
        exact = contest.model.step(tokens, [contest.model.begin(m) for m in memories])
        ours = contest.native.step(tokens, [contest.native.begin(m) for m in memories])
    theirs = _peer_logits(contest, prefixes)
    exact, ours, theirs = (each.log_softmax(-1) for each in (exact, ours, theirs))
    return float((ours - exact).abs().mean() / (theirs - exact).abs().mean())


def _peer_logits(contest: Contest, prefixes: list[list[int]]) -> Tensor:
    translator = next(iter(contest.translators.values()))
    results = translator.translate_batch(
        [[contest.names[i] for i in row] for row in contest.source[: len(prefixes)].tolist()],
        target_prefix=[[contest.names[i] for i in prefix] for prefix in prefixes],
        beam_size=1,
        max_decoding_length=len(prefixes[0]) + 1,
        return_logits_vocab=True,
    )
    return torch.stack([torch.from_numpy(np.array(r.logits[0][-1])) for r in results])
