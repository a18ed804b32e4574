"""Tiny seeded models as checkpoint folders, tokenizer included; nothing is downloaded."""

from __future__ import annotations

import io
from pathlib import Path

import sentencepiece
import torch

from splitformer.model import Transformer, TransformerConfig
from splitformer.model.families.splitformer import OwnConfig
from splitformer.model.saving import save_checkpoint

LANGUAGES = ("ja", "de", "fr", "es", "zh_CN")
SENTENCES = (
    "Open the file.",
    "Do you want to delete the selected files?",
    "The quick brown fox jumps over the lazy dog.",
    "Save all changes before closing the window.",
    "Über größere Änderungen informiert das Menü.",
    "Où est le fichier que j'ai enregistré hier ?",
    "¿Desea eliminar los archivos seleccionados?",
    "ファイルを開く。選択したファイルを削除しますか。",
    "打开文件。是否删除所选文件？",
)
MAX_POSITIONS = 48


def train_tokenizer(path: Path) -> int:
    """Train a SentencePiece model on a few sentences; return the size of its vocabulary."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20),
        model_writer=model,
        vocab_size=400,
        hard_vocab_limit=False,
        byte_fallback=True,
        normalization_rule_name="identity",
        control_symbols=[f"<{language}>" for language in LANGUAGES],
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())
    return int(sentencepiece.SentencePieceProcessor(model_file=str(path)).get_piece_size())


def tiny_config(vocabulary: int, **changes: object) -> TransformerConfig:
    """Return a configuration of a few thousand parameters."""
    values: dict[str, object] = {
        "source_vocabulary_size": vocabulary,
        "target_vocabulary_size": vocabulary,
        "d_model": 32,
        "heads": 4,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "d_feed_forward": 64,
        "max_positions": MAX_POSITIONS,
        "norm": "pre",
    }
    return TransformerConfig.from_dict(values | changes)


def random_model(vocabulary: int, **changes: object) -> Transformer:
    """Return a seeded model in which nothing is 0, as biases and learned positions are at first."""
    torch.manual_seed(1)
    model = Transformer(tiny_config(vocabulary, **changes)).eval()
    for parameter in model.parameters():
        if parameter.dim() == 1 or parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def make_checkpoint(folder: Path, seed: int = 0, **changes: object) -> Path:
    """Write a tiny random model; its embeddings are stretched so that its targets vary."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = folder / "tokenizer.model"
    vocabulary = train_tokenizer(tokenizer)
    torch.manual_seed(seed)
    model = Transformer(tiny_config(vocabulary, tie_output=False, **changes))
    with torch.no_grad():
        model.decoder.output.weight.mul_(8)
    config = OwnConfig(
        name=f"tiny-{seed}",
        architecture=model.config,
        eos_id=1,
        pad_id=0,
        unk_id=2,
        source_language="en",
        target_languages={language: 3 + i for i, language in enumerate(LANGUAGES)},
    )
    save_checkpoint(folder, model, config, tokenizer)
    return folder
