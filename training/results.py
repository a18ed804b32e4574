"""Everything measured about a finished model, as one JSON file from which the card is made.

Holds numbers and translations of our own sentences, never mined text, so that it can be committed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from splitformer.model.checkpoint import Checkpoint
from training.evaluate import evaluate, read_examples
from training.recipe import LANGUAGES
from training.runtime import Workspace
from training.split import Part
from training.tokenizer import Tokenizer
from training.translate import translate


@dataclass(frozen=True, slots=True)
class Facts:
    """What the training run cost and saw.

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


def measure(workspace: Workspace, folder: Path, sentences: Sequence[str]) -> dict[str, Any]:
    """Evaluates the exported model on the test part and translates our own sentences."""
    model = Checkpoint(folder).load()
    tokenizer = Tokenizer(folder / "tokenizer.model")
    examples = read_examples(workspace.root / f"{Part.TEST}.jsonl")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    scores = evaluate(model, tokenizer, examples)
    outputs = {lang: translate(model, tokenizer, sentences, lang) for lang in LANGUAGES}
    samples = [
        {"en": sentence} | {language: outputs[language][i] for language in LANGUAGES}
        for i, sentence in enumerate(sentences)
    ]
    return {
        "facts": asdict(_facts(workspace, folder, parameters)),
        "test": {language: asdict(result) for language, result in scores.items()},
        "samples": samples,
    }


def _facts(workspace: Workspace, folder: Path, parameters: int) -> Facts:
    progress = torch.load(workspace.run / "checkpoint.pt", weights_only=True)["progress"]
    arrays = {part: workspace.arrays(part) for part in Part}
    training = arrays[Part.TRAINING]
    languages = training.target_languages
    return Facts(
        parameters=parameters,
        weight_bytes=(folder / "model.safetensors").stat().st_size,
        steps=progress["step"],
        seconds=progress["seconds"],
        tokens=progress["tokens"],
        strings={part.value: int(found.source_genres.size) for part, found in arrays.items()},
        pairs={name: int((languages == i).sum()) for i, name in enumerate(LANGUAGES)},
        target_tokens=int(training.target_tokens.size),
    )


def write_results(results: dict[str, Any], path: Path) -> None:
    """Writes results as readable JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_sentences(path: Path) -> list[str]:
    """Returns the lines of a file of English sentences, empty ones left out."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip()]
