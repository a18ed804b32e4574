"""Trains and exports the pronunciation model: the translator's trainer, other arrays."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from splitformer.model import Transformer, TransformerConfig
from splitformer.model.families.splitformer import OwnConfig
from splitformer.model.saving import save_checkpoint
from training.data import Batcher, BatchSettings
from training.g2p.dictionary import (
    LETTER_IDS,
    LICENCE_FILE,
    PHONEME_IDS,
    PHONEMES,
    START,
    TEXT_FILE,
    Entries,
    Pronunciation,
    arrays,
    read_entries,
    spell,
    split,
)
from training.g2p.scoring import error_rates
from training.optimizer import OptimizerSettings
from training.runtime import bf16_pays
from training.split import Part, bucket
from training.tokenizer import EOS, PAD, UNKNOWN
from training.train import Probe, Report, Trainer, TrainSettings
from training.translate import decode_greedily

MODEL_NAME = "en-g2p"
TARGET = "arpabet"
"""What a request calls the target language."""
TOKENIZER_FILE = "tokenizer.json"
COLUMNS = ("wer", "per")
PROBE_WORDS = 500
_FIRST_PHONEME = START + 1


def architecture() -> TransformerConfig:
    """Returns the shape of the model: 1.83 M parameters, deep encoder, shallow decoder."""
    return TransformerConfig(
        source_vocabulary_size=1 + max(LETTER_IDS.values()),
        target_vocabulary_size=1 + max(PHONEME_IDS.values()),
        d_model=160,
        heads=5,
        encoder_layers=4,
        decoder_layers=2,
        d_feed_forward=512,
        max_positions=64,
        norm="pre",
        activation="relu",
        positions="sinusoidal",
        share_embeddings=False,
        tie_output=True,
        scale_embeddings=True,
    )


def train_settings(minutes: float, threads: int) -> TrainSettings:
    """Returns the translator's settings where they differ: words are short and few."""
    return TrainSettings(
        minutes=minutes,
        threads=threads,
        micro_batches=1,
        smoothing=0.1,
        dropout=0.2,
        bf16=bf16_pays(),
        averaged=300,
        log_steps=50,
        probe_minutes=5.0,
        batches=BatchSettings(tokens=4096, longest=60, pool=32768, languages=()),
        optimizer=OptimizerSettings(weight_decay=0.1, warmup=0.02, decay=0.9, bf16=bf16_pays()),
    )


def read_parts(folder: Path) -> dict[Part, Entries]:
    """Reads the dictionary that ``fetch`` left."""
    with (folder / TEXT_FILE).open(encoding="utf-8") as file:
        return split(read_entries(file))


def make_trainer(folder: Path, settings: TrainSettings, report: Report | None = None) -> Trainer:
    """Puts a trainer together; it goes on from the folder's checkpoint if there is one."""
    torch.set_flush_denormal(True)
    torch.manual_seed(settings.seed)
    parts = read_parts(folder)
    validation = parts[Part.VALIDATION]
    batches = Batcher(arrays(validation), BatchSettings(tokens=4096, keep=(), languages=())).round(
        0
    )
    return Trainer(
        Transformer(architecture(), dropout=settings.dropout),
        arrays(parts[Part.TRAINING]),
        list(batches),
        settings,
        folder / "run",
        probe=_probe(validation),
        report=report,
    )


def _probe(validation: Entries) -> Probe:
    words = sorted(validation, key=lambda word: (bucket(word, "probe"), word))[:PROBE_WORDS]
    references = [validation[word] for word in words]

    def measure(model: Transformer) -> dict[str, float]:
        rates = error_rates(pronounce(model, words), references)
        return {"wer": rates.wer, "per": rates.per}

    return Probe(COLUMNS, measure)


def pronounce(model: Transformer, words: Sequence[str]) -> list[Pronunciation]:
    """Returns the greedy pronunciation of each word."""
    sources = [spell(word) for word in words]
    outputs = decode_greedily(model, sources, START, [PAD, UNKNOWN, START])
    return [tuple(PHONEMES[token - _FIRST_PHONEME] for token in output) for output in outputs]


def export(folder: Path, model_folder: Path) -> None:
    """Writes the newest checkpoint's averaged weights as a model folder, maps in 8 bits."""
    model = Transformer(architecture())
    state = torch.load(folder / "run" / "checkpoint.pt", weights_only=True)["average"]
    model.load_state_dict(state)
    tokenizer = folder / TOKENIZER_FILE
    tables = {"letters": LETTER_IDS, "symbols": PHONEME_IDS}
    tokenizer.write_text(json.dumps(tables, indent=1) + "\n", encoding="utf-8")
    save_checkpoint(model_folder, model, describe(model), tokenizer, torch.int8)
    (model_folder / "model.safetensors").chmod(0o644)  # safetensors writes for the owner alone
    for file in ("sources.json", LICENCE_FILE):
        shutil.copyfile(folder / file, model_folder / file)


def describe(model: Transformer) -> OwnConfig:
    """Returns what config.json will say of the model."""
    return OwnConfig(
        name=MODEL_NAME,
        architecture=model.config,
        eos_id=EOS,
        pad_id=PAD,
        unk_id=UNKNOWN,
        source_language="en",
        target_languages={TARGET: START},
        tokenizer_file=TOKENIZER_FILE,
        tokenizer_type="symbols",
    )
