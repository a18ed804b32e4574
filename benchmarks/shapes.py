"""The models that benchmarks run: published shapes with seeded random weights, as checkpoints."""

from __future__ import annotations

import io
from pathlib import Path

import sentencepiece
import torch

import splitformer_models
from splitformer.model import Transformer, TransformerConfig
from splitformer.model.families.splitformer import OwnConfig
from splitformer.model.saving import save_checkpoint

EOS, PAD, UNKNOWN, START = 1, 0, 2, 3
LANGUAGE = "xx"
"""The one target language; its token starts the decoder."""


def marian_like(
    encoder: int, decoder: int, width: int, inner: int, size: int, positions: int = 512
) -> TransformerConfig:
    """Return Marian's architecture (post-norm, SiLU, tied embeddings) in a given size."""
    return TransformerConfig(
        source_vocabulary_size=size,
        target_vocabulary_size=size,
        d_model=width,
        heads=width // 64,
        encoder_layers=encoder,
        decoder_layers=decoder,
        d_feed_forward=inner,
        max_positions=positions,
        norm="post",
        activation="silu",
    )


SHAPES = {
    "marian-base": marian_like(6, 6, 512, 2048, 32000),
    "deep-shallow": marian_like(12, 2, 512, 2048, 32000),
    "long": marian_like(1, 1, 512, 512, 2048, 1536),
    "nllb-600m-like": marian_like(12, 12, 1024, 4096, 256000),
}


EMBEDDED = "embedded"
"""The default model, as it is shipped."""


def checkpoint_folder(shape: str, cache: Path) -> Path:
    """Write a shape's checkpoint once, with float32 weights; return its folder."""
    if shape == EMBEDDED:
        return splitformer_models.model_path()
    folder = cache / shape
    if not (folder / "config.json").exists():
        config = SHAPES[shape]
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer = folder / "tokenizer.model"
        tokenizer.write_bytes(_tokenizer(config.target_vocabulary_size))
        torch.manual_seed(0)
        save_checkpoint(
            folder, Transformer(config), _description(shape, config), tokenizer, torch.float32
        )
    return folder


def _description(name: str, config: TransformerConfig) -> OwnConfig:
    return OwnConfig(name, config, EOS, PAD, UNKNOWN, "en", {LANGUAGE: START})


def _tokenizer(size: int) -> bytes:
    """Make a SentencePiece model with one made-up word for each id."""
    model = io.BytesIO()
    words = (f"w{token:x}" for token in range(size - 4))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=words,
        model_writer=model,
        model_type="word",
        vocab_size=size,
        normalization_rule_name="identity",
        control_symbols=[f"<{LANGUAGE}>"],
        pad_id=PAD,
        eos_id=EOS,
        unk_id=UNKNOWN,
        bos_id=-1,
        minloglevel=2,
    )
    return model.getvalue()
