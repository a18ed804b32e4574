"""Error rates of the exported pronunciation model, measured through the services."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from splitformer.model.checkpoint import Checkpoint
from training.g2p.dictionary import Entries, arrays
from training.g2p.run import TARGET, read_parts
from training.g2p.scoring import ErrorRates, error_rates
from training.served import Request, Variant, services, translate_all
from training.split import Part, bucket

DEFAULT = Variant("int8")
VARIANTS = (DEFAULT, Variant("int8", 5), Variant("fp32"))
TOLERANCE = 0.3
"""Points of an error rate: a machine's fp32 arithmetic."""
SAMPLES = 10


def sample(entries: Entries, share: float) -> Entries:
    """Returns about that share of the words, always the same ones."""
    chosen = (word for word in entries if bucket(word, "sample") < 1000 * share)
    return {word: entries[word] for word in chosen}


def measure(
    folder: Path, entries: Entries, variants: Sequence[Variant] = VARIANTS
) -> dict[str, Any]:
    """Returns the error rates of every variant on the words."""
    requests = [Request(word, [TARGET]) for word in entries]
    references = list(entries.values())
    measured: dict[str, Any] = {}
    for precision, group in groupby(variants, key=lambda variant: variant.precision):
        with services(folder, precision) as running:
            for variant in group:
                found = translate_all(running, requests, variant)
                outputs = [tuple(outcome[TARGET].text.split()) for outcome in found]
                measured[variant.name] = asdict(error_rates(outputs, references))
    return measured


def pronounce_samples(folder: Path, entries: Entries) -> dict[str, list[str]]:
    """Returns some words, chosen by their hashes: what the model says, and what is right."""
    words = sorted(entries, key=lambda word: (bucket(word, "sample"), word))[:SAMPLES]
    with services(folder, DEFAULT.precision) as running:
        found = translate_all(running, [Request(word, [TARGET]) for word in words], DEFAULT)
    return {
        word: [outcome[TARGET].text, *map(" ".join, entries[word])]
        for word, outcome in zip(words, found, strict=True)
    }


def read_facts(work: Path, folder: Path) -> dict[str, Any]:
    """Returns what the run has cost; its checkpoint is the exported one."""
    progress = torch.load(work / "run" / "checkpoint.pt", weights_only=True)["progress"]
    parts = read_parts(work)
    return {
        "parameters": sum(p.numel() for p in Checkpoint(folder).load().parameters()),
        "weight_bytes": (folder / "model.safetensors").stat().st_size,
        "steps": progress["step"],
        "seconds": progress["seconds"],
        "tokens": progress["tokens"],
        "words": {part.value: len(found) for part, found in parts.items()},
        "target_tokens": int(arrays(parts[Part.TRAINING]).target_tokens.size),
    }


def lines(measured: Mapping[str, Any]) -> Iterator[str]:
    """Yields one line per number."""
    for variant, found in measured.items():
        name = "g2p" if variant == DEFAULT.name else f"g2p.{variant}"
        rates = ErrorRates(**found)
        yield f"{name}.wer {rates.wer:.2f} of {rates.words}"
        yield f"{name}.per {rates.per:.2f}"


def regressions(measured: Mapping[str, Any], committed: Mapping[str, Any]) -> Iterator[str]:
    """Yields a sentence for every rate that has risen by more than the tolerance."""
    for variant in measured.keys() & committed.keys():
        for name in ("wer", "per"):
            now, before = measured[variant][name], committed[variant][name]
            if now > before + TOLERANCE:
                yield f"g2p {variant}.{name}: {now:.2f}, was {before:.2f}"
