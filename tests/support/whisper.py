"""Tiny random Whispers as folders, written by Transformers, tokenizer included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from tests.support.checkpoints import SENTENCES

LANGUAGES = ("en", "zh", "de", "yue")
SECONDS = 1  # of a window; published checkpoints have 30
POSITIONS = 50 * SECONDS
MAX_TARGET = 60
_MARKS = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")


def make_whisper(
    folder: Path,
    seed: int = 0,
    multilingual: bool = True,
    bins: int = 80,
    whole_tokenizer: bool = False,
    dtype: torch.dtype = torch.float32,
    seconds: int = SECONDS,
    **changes: Any,
) -> Path:
    """Write a model of a few thousand parameters.

    Args:
        folder: Where to.
        seed: Of the weights.
        multilingual: With languages and tasks.
        bins: Mel bins.
        whole_tokenizer: Write tokenizer.json instead of vocab.json, merges.txt and
            added_tokens.json.
        dtype: Of the stored weights.
        seconds: Length of a window.
        **changes: Of config.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ids = _write_tokenizer(folder, whole_tokenizer)
    first_time = ids["<|notimestamps|>"] + 1
    torch.manual_seed(seed)
    values: dict[str, Any] = {
        "vocab_size": first_time + 50 * seconds + 1,
        "num_mel_bins": bins,
        "d_model": 32,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_layers": 3,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 64,
        "max_source_positions": 50 * seconds,
        "max_target_positions": MAX_TARGET,
        "init_std": 0.12,
        "pad_token_id": ids["<|endoftext|>"],
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|endoftext|>"],
        "decoder_start_token_id": ids["<|startoftranscript|>"],
        "suppress_tokens": None,
        "begin_suppress_tokens": None,
    }
    model = WhisperForConditionalGeneration(WhisperConfig(**(values | changes)))
    with torch.no_grad():  # random embeddings alone only echo the last token
        model.model.decoder.layer_norm.weight.neg_().mul_(2)
        model.model.decoder.embed_positions.weight.normal_(std=0.5)
    model.to(dtype).save_pretrained(folder)
    extractor = WhisperFeatureExtractor(feature_size=bins, chunk_length=seconds)
    extractor.save_pretrained(folder)
    (folder / "processor_config.json").unlink(missing_ok=True)
    _write_generation(folder, ids, multilingual)
    return folder


def reference(folder: Path) -> WhisperForConditionalGeneration:
    """Open a folder with Transformers."""
    return WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


def _write_tokenizer(folder: Path, whole: bool) -> dict[str, int]:
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(SENTENCES * 20, vocab_size=330, show_progress=False)
    trained.save_model(str(folder))
    vocabulary = json.loads((folder / "vocab.json").read_text())
    base = len(vocabulary)
    names = ["endoftext", "startoftranscript", *LANGUAGES, *_MARKS]
    added = {f"<|{name}|>": base + i for i, name in enumerate(names)}
    if not whole:
        (folder / "added_tokens.json").write_text(json.dumps(added))
        return added
    times = [f"<|{i * 0.02:.2f}|>" for i in range(POSITIONS + 1)]
    tokenizer = WhisperTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": list(added)})
    tokenizer.add_tokens(times)
    tokenizer.save_pretrained(folder)
    for name in ("vocab.json", "merges.txt", "added_tokens.json"):
        (folder / name).unlink(missing_ok=True)
    return added


def _write_generation(folder: Path, ids: dict[str, int], multilingual: bool) -> None:
    space, silence = 220, ids["<|endoftext|>"]
    values: dict[str, Any] = {
        "begin_suppress_tokens": [space, silence],
        "suppress_tokens": [1, 2, 7, *(ids[f"<|{name}|>"] for name in _MARKS[:5])],
        "decoder_start_token_id": ids["<|startoftranscript|>"],
        "eos_token_id": silence,
        "bos_token_id": silence,
        "pad_token_id": silence,
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "max_initial_timestamp_index": 10,
        "max_length": MAX_TARGET,
        "return_timestamps": False,
        "is_multilingual": multilingual,
    }
    if multilingual:
        values["lang_to_id"] = {f"<|{code}|>": ids[f"<|{code}|>"] for code in LANGUAGES}
        values["task_to_id"] = {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")}
    (folder / "generation_config.json").write_text(json.dumps(values))
