"""Published models in their real sizes, with random weights, as folders and as CTranslate2's."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ctranslate2.converters.transformers as conversion
import numpy as np
import sentencepiece
import torch
from numpy.typing import NDArray
from transformers import (
    M2M100Config,
    M2M100ForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    MBartConfig,
    MBartForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
    WhisperForConditionalGeneration,
)

from benchmarks.contest import SOURCE_TOKENS
from benchmarks.peers.ctranslate2_model import token_names
from benchmarks.whisper_model import BINS, FRAMES, START, marks, names, whisper, whisper_files

MOST_STREAMS = 8
DONE = "done"
"""Marks a folder that was written to its end."""


@dataclass(frozen=True, slots=True)
class Published:
    """A published model.

    Attributes:
        build: Makes it, with random weights, in Transformers.
        tokenizer: Writes a tokenizer of the kind its folder has.
        start: What its targets start with in CTranslate2, by id, if sources are text.
        streams: How many are measured.
    """

    build: Callable[[], Any]
    tokenizer: Callable[[Path, int], None]
    start: int = 0
    streams: tuple[int, ...] = (1, MOST_STREAMS)


def opus_mt(layers: int = 6, width: int = 512, vocabulary: int = 58101) -> Any:
    """OPUS-MT base."""
    config = MarianConfig(
        vocab_size=vocabulary,
        encoder_layers=layers,
        decoder_layers=layers,
        d_model=width,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        encoder_attention_heads=8,
        decoder_attention_heads=8,
        activation_function="swish",
        scale_embedding=True,
        pad_token_id=0,
        eos_token_id=1,
        forced_eos_token_id=None,
        decoder_start_token_id=0,
    )
    return MarianMTModel(config)


def nllb() -> Any:
    """NLLB-200 distilled: 12 + 12 layers, width 1,024, vocabulary 256,206."""
    return M2M100ForConditionalGeneration(M2M100Config(vocab_size=256206))


def mbart() -> Any:
    """mBART-large: 12 + 12 layers, width 1,024, vocabulary 250,027."""
    config = MBartConfig(
        vocab_size=250027,
        scale_embedding=True,
        decoder_start_token_id=2,
        forced_eos_token_id=None,
    )
    return MBartForConditionalGeneration(config)


def t5() -> Any:
    """T5-base: 12 + 12 layers, width 768, vocabulary 32,128."""
    config = T5Config(d_model=768, d_ff=3072, num_layers=12, num_heads=12, decoder_start_token_id=0)
    return T5ForConditionalGeneration(config)


def marian_files(folder: Path, size: int) -> None:
    """Write source.spm, target.spm and vocab.json."""
    for name in ("source.spm", "target.spm"):
        (folder / name).write_bytes(_pieces())
    _vocabulary(folder, size, ("<pad>", "</s>", "<unk>"))


def m2m100_files(folder: Path, size: int) -> None:
    """Write sentencepiece.bpe.model and vocab.json."""
    (folder / "sentencepiece.bpe.model").write_bytes(_pieces())
    _vocabulary(folder, size - 108, ("<s>", "<pad>", "</s>", "<unk>"))


def mbart_files(folder: Path, size: int) -> None:
    """Write sentencepiece.bpe.model."""
    (folder / "sentencepiece.bpe.model").write_bytes(_pieces())


def t5_files(folder: Path, size: int) -> None:
    """Write spiece.model."""
    (folder / "spiece.model").write_bytes(_pieces())


MODELS = {
    "opus-mt": Published(opus_mt, marian_files, 0),
    "nllb-600m": Published(nllb, m2m100_files, 2),
    "mbart-large": Published(mbart, mbart_files, 2),
    "t5-base": Published(t5, t5_files, 0),
    "whisper-base": Published(partial(whisper, 512, 6, 8), whisper_files),
    "whisper-small": Published(partial(whisper, 768, 12, 12), whisper_files),
}


def sources(size: int) -> list[list[int]]:
    """Return random sources."""
    drawn = np.random.default_rng(0).integers(8, size, (MOST_STREAMS, SOURCE_TOKENS))
    rows: list[list[int]] = drawn.tolist()
    return rows


def audio() -> NDArray[np.float32]:
    """Return features of 30 s, (frames, bins)."""
    drawn = np.random.default_rng(0).standard_normal((FRAMES, BINS))
    return drawn.astype(np.float32)


def folder_of(name: str, cache: Path) -> Path:
    """Write a model's folder once, in half precision as most are stored; return it."""
    folder = cache / "families" / name
    if not (folder / DONE).exists():
        folder.mkdir(parents=True, exist_ok=True)
        model = _seeded(name)
        MODELS[name].tokenizer(folder, model.config.vocab_size)
        model.half().save_pretrained(folder)
        (folder / DONE).touch()
    return folder


def converted(name: str, cache: Path) -> Path:
    """Convert a model once, by CTranslate2's own loader, in int8; return its folder."""
    folder = cache / "families" / f"{name}-ct2"
    if (folder / DONE).exists():
        return folder
    model = _seeded(name).half().float()
    model.config.normalize_before = True  # of mBART's older configurations, which it looks for
    loader = conversion._MODEL_LOADERS[type(model.config).__name__]
    with torch.no_grad():
        spec = loader.get_model_spec(model)
    if isinstance(model, WhisperForConditionalGeneration):
        loader.set_vocabulary(spec, names())
        spec.config.suppress_ids = spec.config.suppress_ids_begin = []
        spec.config.lang_ids, spec.config.alignment_heads = [marks()[START[1]]], [(0, 0)]
    else:
        _name_tokens(spec, loader, MODELS[name].start)
    spec.validate()
    spec.optimize(quantization="int8")
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    (folder / DONE).touch()
    return folder


def _name_tokens(spec: Any, loader: Any, start: int) -> None:
    """Give tokens of a model of text the names that CTranslate2 works with."""
    tokens = token_names(spec.decoder.projection.weight.shape[0])  # Marian's has no padding
    loader.set_vocabulary(spec, tokens)
    config = spec.config
    config.decoder_start_token = tokens[start]
    config.bos_token, config.eos_token, config.unk_token = tokens[0], "</s>", "<unk>"
    config.add_source_bos = config.add_source_eos = False


def _seeded(name: str) -> Any:
    torch.manual_seed(0)
    return MODELS[name].build().eval()


def _vocabulary(folder: Path, size: int, special: tuple[str, ...]) -> None:
    pieces = [*special, *(f"w{i}" for i in range(len(special), size))]
    ids = {piece: i for i, piece in enumerate(pieces)}
    (folder / "vocab.json").write_text(json.dumps(ids))


def _pieces() -> bytes:
    """Make a SentencePiece model that only its file format matters of."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a few words to train on"] * 20),
        model_writer=model,
        vocab_size=24,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return model.getvalue()
