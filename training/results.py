"""Everything measured about a finished model, as one JSON file from which the card is made.

Holds numbers and translations of our own sentences, never mined text, so that it can be committed.
All translations come through the services.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from splitformer.model.checkpoint import Checkpoint
from splitformer.serving.local import LocalServices
from training.checks import Translated, rates
from training.corpus import Example
from training.recipe import ASIDE, LANGUAGES
from training.runtime import Workspace
from training.scores import score_language
from training.served import Request, Variant, services, translate_all
from training.split import Part

DEFAULT = Variant("int8")
"""How the services run the model if nobody says otherwise."""
PLAIN = Variant("int8", plain=True)
"""The same without what the client does about loops and placeholders."""
VARIANTS = (DEFAULT, PLAIN, Variant("int8", 5), Variant("fp32"), Variant("fp32", 5))


def variants_named(
    names: Sequence[str] | None, variants: Sequence[Variant] = VARIANTS
) -> list[Variant]:
    """Returns those of the variants that have the names, all of them for None.

    Raises:
        ValueError: there is no variant of a name.
    """
    known = {variant.name: variant for variant in variants}
    for name in names or ():
        if name not in known:
            raise ValueError(f"variant: must be one of {', '.join(known)}, is {name!r}")
    return [known[name] for name in names or known]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the training runs cost and saw.

    Attributes:
        parameters: trainable parameters, tied ones counted once.
        weight_bytes: size of ``model.safetensors``.
        steps: updates.
        seconds: active seconds of training.
        tokens: target tokens seen, repetitions included.
        strings: English strings of each part of the corpus.
        pairs: pairs in the training part, by language.
        target_tokens: target tokens in the training part.
    """

    parameters: int
    weight_bytes: int
    steps: int
    seconds: float
    tokens: int
    strings: dict[str, int]
    pairs: dict[str, int]
    target_tokens: int


def measure(
    folder: Path, examples: Sequence[Example], variants: Sequence[Variant] = VARIANTS
) -> dict[str, Any]:
    """Evaluates an exported model on examples: scores and checks of every variant."""
    measured: dict[str, Any] = {}
    for precision, group in groupby(variants, key=lambda variant: variant.precision):
        with services(folder, precision) as running:
            for variant in group:
                measured[variant.name] = measure_variant(running, examples, variant)
    return measured


def measure_variant(
    running: LocalServices, examples: Sequence[Example], variant: Variant
) -> dict[str, Any]:
    """Translates every example into all its languages; returns scores by language, and checks."""
    requests = [Request(example.english, tuple(example.translations)) for example in examples]
    outputs = translate_all(running, requests, variant)
    scores = {}
    for language in LANGUAGES:
        used = [i for i, example in enumerate(examples) if language in example.translations]
        texts = [outputs[i][language].text for i in used]
        scores[language] = asdict(score_language([examples[i] for i in used], texts, language))
    translated = [
        Translated(example.english, output.text, language, output.complete)
        for example, found in zip(examples, outputs, strict=True)
        if example.source not in ASIDE
        for language, output in found.items()
    ]
    checks = {name: asdict(rate) for name, rate in rates(translated).items()}
    return {"languages": scores, "checks": checks}


def translate_samples(folder: Path, sentences: Sequence[str]) -> list[dict[str, str]]:
    """Returns our own sentences with their translations, by language."""
    with services(folder, DEFAULT.precision) as running:
        requests = [Request(sentence, LANGUAGES) for sentence in sentences]
        outputs = translate_all(running, requests, DEFAULT)
    return [
        {"en": sentence} | {language: found[language].text for language in LANGUAGES}
        for sentence, found in zip(sentences, outputs, strict=True)
    ]


def read_facts(workspace: Workspace, folder: Path) -> dict[str, Any]:
    """Returns what the workspace's run has cost; its checkpoint is the exported one."""
    progress = torch.load(workspace.checkpoint, weights_only=True)["progress"]
    arrays = {part: workspace.arrays(part) for part in Part}
    training = arrays[Part.TRAINING]
    languages = training.target_languages
    facts = Facts(
        parameters=sum(p.numel() for p in Checkpoint(folder).load().parameters()),
        weight_bytes=(folder / "model.safetensors").stat().st_size,
        steps=progress["step"],
        seconds=progress["seconds"],
        tokens=progress["tokens"],
        strings={part.value: int(found.source_genres.size) for part, found in arrays.items()},
        pairs={name: int((languages == i).sum()) for i, name in enumerate(LANGUAGES)},
        target_tokens=int(training.target_tokens.size),
    )
    return asdict(facts)


def read_results(path: Path) -> dict[str, Any]:
    """Reads what ``write_results`` wrote; nothing if there is no such file."""
    if not path.exists():
        return {}
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return results


def write_results(results: dict[str, Any], path: Path) -> None:
    """Writes results as readable JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_sentences(path: Path) -> list[str]:
    """Returns the lines of a file of English sentences, empty ones left out."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip()]
