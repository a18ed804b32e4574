"""`encode`: the encoder alone on 512 sentences of mixed length, against the peers and the floor.

Every contestant encodes the same slice of the sentences in turn. CTranslate2 has no call that stops
after the encoder: its time is that of the sources with one forced target token. Hugging Face gets
padded batches of 32, sentences of like length together, in float32. The floor is the matrix
products of as many rows alone, in int8, with the same threads; `floor_vs_hf` is what `vs_hf` would
be if nothing but these took time. `hf_padding` is the share of padding among Hugging Face's rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import shapes
from benchmarks.contest import Contest
from benchmarks.measuring import Contestant, Match, Sample, fastest, interleaved, times
from benchmarks.report import Report

PADDED = 32
"""Sentences in a batch of Hugging Face's."""

FLOOR_ROWS = 96
"""Rows that go through the native encoder together."""

SHORTEST, LONGEST = 3, 120


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure.

    Attributes:
        sentences: In all.
        slices: Parts of them that contestants take turns with.
        slow: Slices in which Hugging Face takes part.
        rounds: How often each slice is encoded, at most.
        most_seconds: For all rounds but the first.
    """

    sentences: int
    slices: int
    slow: int
    rounds: int
    most_seconds: float


QUICK = Plan(512, 8, 2, 12, 25.0)
FULL = Plan(512, 8, 8, 12, 120.0)

Sources = list[list[int]]


def run(report: Report, cache: Path, quick: bool) -> None:
    """Measure and report `encode.*` in the Marian-base shape."""
    plan = QUICK if quick else FULL
    contest = Contest(shapes.checkpoint_folder("marian-base", cache), cache)
    sources = mixed(plan.sentences, contest.model.config.source_vocabulary_size)
    translator = _fastest_layout(contest, sources[:PADDED])
    parts = [sources[number :: plan.slices] for number in range(plan.slices)]
    matches = {
        f"encode.{number}": Match.apart(
            _contestants(contest, translator, part, slow=number < plan.slow)
        )
        for number, part in enumerate(parts)
    }
    found = interleaved(matches, plan.rounds, plan.most_seconds)
    for name, samples in found.items():
        report.detail(name, samples)
    _figures(report, list(found.values()), sum(map(len, sources)))
    report.figure("encode.hf_padding", padding(sources[:: plan.slices]))
    report.figure("encode.hf_threads", float(torch.get_num_threads()))
    contest.close()


def _contestants(
    contest: Contest, translator: Any, part: Sources, slow: bool
) -> dict[str, Contestant]:
    some = part[:8]  # warm all weights
    contestants = {
        "ours": Contestant.whole(
            lambda: contest.encoder.encode(part), lambda: contest.encoder.encode(some)
        ),
        "floor": Contestant.whole(_floor(contest, part), _floor(contest, some)),
        "ctranslate2": Contestant.whole(
            _ctranslate2(contest, translator, part),
            _ctranslate2(contest, translator, some),
            spins=True,
        ),
    }
    if slow:
        run, warm = _hugging_face(contest, part), _hugging_face(contest, some)
        contestants["hf"] = Contestant.whole(run, warm, spins=True)
    return contestants


def mixed(count: int, vocabulary: int) -> Sources:
    """Make sentences whose lengths are spread as those of text are: most short, a few long."""
    numbers = np.random.default_rng(0)
    lengths = np.clip(numbers.lognormal(3.0, 0.6, count), SHORTEST, LONGEST).astype(int)
    return [numbers.integers(8, vocabulary, length).tolist() for length in lengths]


def _figures(report: Report, slices: Sequence[Mapping[str, Sample]], tokens: int) -> None:
    taken = sum(samples["ours"].median for samples in slices)
    report.figure("encode.tokens_per_second", tokens / taken)
    report.figure("encode.vs_hf", _times(slices, "ours", "hf"))
    report.figure("encode.vs_ctranslate2", _times(slices, "ours", "ctranslate2"))
    report.figure("encode.vs_floor", _times(slices, "ours", "floor"))
    report.figure("encode.floor_vs_hf", _times(slices, "floor", "hf"))


def _times(slices: Sequence[Mapping[str, Sample]], ours: str, theirs: str) -> float:
    """How many times faster the one is, over all slices in which both take part."""
    both = [samples for samples in slices if theirs in samples]
    return times(*(_together(samples[name] for samples in both) for name in (ours, theirs)))


def _together(samples: Iterable[Sample]) -> Sample:
    return Sample.of(seconds for sample in samples for seconds in sample.seconds)


def _floor(contest: Contest, part: Sources) -> Callable[[], object]:
    blocks, rest = divmod(sum(map(len, part)), FLOOR_ROWS)
    plan = contest.encoder.plan

    def run() -> None:
        plan.products(FLOOR_ROWS, blocks)
        if rest:
            plan.products(rest, 1)

    return run


def _fastest_layout(contest: Contest, part: Sources) -> Any:
    peers = {peer.name: peer for peer in contest.peers}
    chosen = fastest(
        {name: _ctranslate2(contest, peer.translator, part) for name, peer in peers.items()}
    )
    return peers[chosen].translator


def _ctranslate2(contest: Contest, translator: Any, part: Sources) -> Callable[[], object]:
    names = [[contest.names[i] for i in source] for source in part]
    prefix = [[contest.names[shapes.START + 5]]] * len(names)

    def run() -> None:
        translator.translate_batch(
            names,
            target_prefix=prefix,
            max_batch_size=1024,
            batch_type="tokens",
            beam_size=1,
            max_decoding_length=1,
        )

    return run


def _hugging_face(contest: Contest, part: Sources) -> Callable[[], object]:
    encoder = contest.huggingface.get_encoder()
    batches = [_padded(batch) for batch in batches_of(part)]

    def run() -> None:
        with torch.inference_mode():
            for ids, mask in batches:
                encoder(input_ids=ids, attention_mask=mask)

    return run


def batches_of(part: Sources) -> list[Sources]:
    """Put sentences of like length together."""
    ordered = sorted(part, key=len)
    return [ordered[i : i + PADDED] for i in range(0, len(ordered), PADDED)]


def padding(part: Sources) -> float:
    """Return the share of the rows of padded batches that are padding."""
    rows = sum(len(batch) * max(map(len, batch)) for batch in batches_of(part))
    return 1 - sum(map(len, part)) / rows


def _padded(sources: Sources) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.full((len(sources), max(map(len, sources))), shapes.PAD)
    for row, source in zip(ids, sources, strict=True):
        row[: len(source)] = torch.tensor(source)
    return ids, (ids != shapes.PAD).long()
