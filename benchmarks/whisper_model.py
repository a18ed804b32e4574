"""Whisper in its published sizes, with random weights: its folder's files and its tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

FRAMES, BINS = 3000, 80
START = ("<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>")
"""What targets begin with: English, written down, without times."""

_TEXTS, _TIMES, _LANGUAGES = 50257, 1501, 99
_MARKS = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")


def whisper(width: int, layers: int, heads: int) -> Any:
    """One of the multilingual sizes: vocabulary 51,865, memory 1,500 x width."""
    ids = marks()
    config = WhisperConfig(
        vocab_size=len(names()),
        d_model=width,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        pad_token_id=ids["<|endoftext|>"],
        bos_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|endoftext|>"],
        decoder_start_token_id=ids[START[0]],
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig.from_model_config(config)
    model.generation_config.update(
        no_timestamps_token_id=ids[START[3]],
        is_multilingual=True,
        lang_to_id={START[1]: ids[START[1]]},
        task_to_id={task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")},
    )
    return model


def marks() -> dict[str, int]:
    """Tokens that are no text, by name."""
    languages = ["en", *(f"x{i:02}" for i in range(1, _LANGUAGES))]
    every = ("endoftext", "startoftranscript", *languages, *_MARKS)
    return {f"<|{name}|>": _TEXTS + i for i, name in enumerate(every)}


def names() -> list[str]:
    """All tokens in the order of their ids."""
    texts = sorted(pre_tokenizers.ByteLevel.alphabet())
    texts += [f"w{i}" for i in range(len(texts), _TEXTS)]
    return [*texts, *marks(), *(f"<|{i * 0.02:.2f}|>" for i in range(_TIMES))]


def whisper_files(folder: Path, size: int) -> None:
    """Write vocab.json, merges.txt, added_tokens.json and preprocessor_config.json."""
    vocabulary = {name: i for i, name in enumerate(names()[:_TEXTS])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "added_tokens.json").write_text(json.dumps(marks()))
    WhisperFeatureExtractor(feature_size=BINS).save_pretrained(folder)
