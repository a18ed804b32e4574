"""Tiny tokenizers trained here, in the files that published checkpoints have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tests.support.checkpoints import SENTENCES

FAIRSEQ = ("<s>", "<pad>", "</s>", "<unk>")


def train_bpe(special: Sequence[str] = FAIRSEQ, size: int = 300) -> Any:
    """Train BPE on words behind SentencePiece's space, as NLLB's."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[*special], show_progress=False)
    tokenizer.train_from_iterator([*SENTENCES] * 20, trainer)
    return tokenizer


def train_byte_level(special: Sequence[str] = (*FAIRSEQ, "<mask>"), size: int = 400) -> Any:
    """Train byte-level BPE, as BART's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[*special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*SENTENCES] * 20, trainer)
    return tokenizer


def train_unigram(special: Sequence[str], unknown: str = "<unk>", size: int = 300) -> Any:
    """Train a unigram model, as T5's and mBART's."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=[*special], unk_token=unknown, show_progress=False
    )
    tokenizer.train_from_iterator([*SENTENCES] * 20, trainer)
    return tokenizer
