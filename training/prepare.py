"""From mined pairs to what training reads: split, tokenizer, token arrays."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from training.augment import augment
from training.checks import Translated, markup, no_loop, numbers, placeholders, script
from training.corpus import Example, examples
from training.data import tokenize
from training.mine import read_pairs
from training.recipe import Source
from training.split import HELD_OUT, Part, Splitter, fold
from training.tokenizer import Tokenizer, TokenizerSettings, train_tokenizer

KEPT = (placeholders, markup, numbers, no_loop, script)
"""Checks that a training pair has to pass."""
NAMES = 0.5
"""Share of the training examples that get a copy with names and numbers replaced."""


def split_corpus(pairs: Path, sources: Iterable[Source]) -> dict[Part, list[Example]]:
    """Reads the mined pairs and returns the examples of each part."""
    sources = tuple(sources)
    mined = list(read_pairs(pairs, sources))
    return examples(mined, Splitter(mined), sources)


def prepare(
    parts: dict[Part, list[Example]], folder: Path, settings: TokenizerSettings
) -> dict[str, int]:
    """Trains the tokenizer on the training part, writes all parts; returns the tokens of each.

    Writes ``tokenizer.model``, ``<part>.npz`` for training and ``<part>.jsonl`` for evaluation.
    Copies with other placeholders join the training arrays, not the tokenizer's text.
    """
    model = folder / "tokenizer.model"
    train_tokenizer(_texts(parts[Part.TRAINING]), model, settings)
    return write_arrays(parts, folder, Tokenizer(model))


def prepare_like(parts: dict[Part, list[Example]], folder: Path, model: Path) -> dict[str, int]:
    """Does what ``prepare`` does with the tokenizer of an exported model, to go on from it."""
    shutil.copyfile(model / "tokenizer.model", folder / "tokenizer.model")
    return write_arrays(parts, folder, Tokenizer(folder / "tokenizer.model"))


def write_arrays(
    parts: dict[Part, list[Example]], folder: Path, tokenizer: Tokenizer
) -> dict[str, int]:
    """Writes the token arrays of all parts; returns the target tokens of each."""
    held_out = {fold(e.english) for part in HELD_OUT for e in parts[part]}
    learnt = list(consistent(parts[Part.TRAINING]))
    learnt += augment(learnt, held_out, names=NAMES)
    tokens: dict[str, int] = {}
    for part, found in parts.items():
        arrays = tokenize(learnt if part is Part.TRAINING else found, tokenizer)
        arrays.save(folder / f"{part}.npz")
        tokens[part.value] = int(arrays.target_tokens.size)
        if part is not Part.TRAINING:
            _write_examples(found, folder / f"{part}.jsonl")
    return tokens


def consistent(found: Iterable[Example]) -> Iterator[Example]:
    """Yields the examples without translations that a check would call wrong."""
    for example in found:
        translations = {
            language: text
            for language, text in example.translations.items()
            if _passes(Translated(example.english, text, language))
        }
        if translations:
            yield replace(example, translations=translations)


def _passes(pair: Translated) -> bool:
    return all(check(pair) is not False for check in KEPT)


def _texts(found: list[Example]) -> Iterator[str]:
    for example in found:
        yield example.english
        yield from example.translations.values()


def _write_examples(found: list[Example], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for example in found:
            row = [example.english, example.source, example.genre.value, example.translations]
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
