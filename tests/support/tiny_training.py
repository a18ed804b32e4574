"""What tests of training begin with: a few texts, and a tokenizer and a model made small."""

from __future__ import annotations

from pathlib import Path

import torch

from splitformer.model import Transformer, TransformerConfig
from training.tokenizer import TokenizerSettings, train_tokenizer

TEXTS = [
    "Open the file and close the window.",
    "ファイルを開いて、ウィンドウを閉じます。",
    "Öffnen Sie die Datei und schließen Sie das Fenster.",
    "打开文件并关闭窗口。",
]


def tiny_tokenizer(path: Path) -> Path:
    """Train a tokenizer on `TEXTS` into a file; return its path."""
    train_tokenizer(TEXTS * 20, path, TokenizerSettings(pieces=320, coverage=1.0, sentences=1000))
    return path


def tiny_transformer(vocabulary: int) -> Transformer:
    """Make a seeded model of one layer a side."""
    torch.manual_seed(1)
    return Transformer(
        TransformerConfig(
            source_vocabulary_size=vocabulary,
            target_vocabulary_size=vocabulary,
            d_model=16,
            heads=2,
            encoder_layers=1,
            decoder_layers=1,
            d_feed_forward=32,
            max_positions=64,
            norm="pre",
        )
    )
