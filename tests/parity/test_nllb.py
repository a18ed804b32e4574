"""NLLB folders as downloaded: what Transformers computes with them, we do too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import M2M100Config, M2M100ForConditionalGeneration, NllbTokenizer

from splitformer.model.checkpoint import Checkpoint
from tests.support.checkpoints import SENTENCES
from tests.support.hub_tokenizers import train_bpe
from tests.support.pairs import POSITIONS, Pair, varied
from tests.support.servers import ServerThread

SHORT = ("Open the file.", "Save all changes now", "naïve café 😀")
TEXTS = (*SENTENCES, "Größe: 5 µm (ungefähr) 😀", "  two  spaces ", "naïve café")
CODES = ("eng_Latn", "fra_Latn", "jpn_Jpan", "deu_Latn")


def make_pair(folder: Path) -> Pair:
    trained = json.loads(train_bpe().to_str())["model"]
    tokenizer = NllbTokenizer(
        vocab=trained["vocab"],
        merges=[tuple(merge) for merge in trained["merges"]],
        additional_special_tokens=[*CODES],
    )
    tokenizer.save_pretrained(folder)
    config = M2M100Config(
        vocab_size=len(tokenizer) + 3,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=POSITIONS,
        init_std=0.05,
    )
    torch.manual_seed(5)
    return Pair.of(varied(M2M100ForConditionalGeneration(config)), folder)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("nllb") / "nllb-tiny")


@pytest.fixture(scope="module")
def tokenizer(pair: Pair) -> NllbTokenizer:
    return NllbTokenizer.from_pretrained(pair.folder)


def test_encoder_output_and_logits(pair: Pair) -> None:
    pair.check_encoder()
    pair.check_logits()


@pytest.mark.parametrize("text", TEXTS)
def test_tokenizer(pair: Pair, tokenizer: NllbTokenizer, text: str) -> None:
    for language in ("eng_Latn", "jpn_Jpan"):
        tokenizer.src_lang = language
        assert pair.source_ids(text, language) == tokenizer(text).input_ids
    tokenizer.tgt_lang = "fra_Latn"
    first, *target = tokenizer(text_target=text).input_ids
    assert pair.checkpoint.description.languages.starts["fra_Latn"] == (2, first)
    assert [*pair.checkpoint.tokenizer.encode_target(text), 2] == target
    expected = tokenizer.decode([first, *target], skip_special_tokens=True)
    assert pair.checkpoint.tokenizer.decode([first, *target]).strip() == expected.strip()


def test_spans_and_text_that_looks_like_a_token(pair: Pair) -> None:
    text = "naïve 😀 </s> fra_Latn"
    first, *pieces, end = pair.checkpoint.encode_source(text, "eng_Latn")
    raw = text.encode()
    assert (first.begin, first.end, end.begin, end.end) == (0, 0, len(raw), len(raw))
    assert b"".join(raw[p.begin : p.end] for p in pieces).split() == raw.split()
    codes = {tokens[-1] for tokens in pair.checkpoint.description.languages.starts.values()}
    assert not {piece.id for piece in pieces} & {0, 1, 2, *codes}


def test_over_the_wire(pair: Pair, tokenizer: NllbTokenizer, servers: ServerThread) -> None:
    requests = [(text, "eng_Latn", to) for text in SHORT for to in ("fra_Latn", "jpn_Jpan")]
    expected = [
        pair.check_greedy(
            pair.source_ids(text, source),
            to,
            forced_bos_token_id=tokenizer.convert_tokens_to_ids(to),
        )
        for text, source, to in requests
    ]
    answers = pair.check_wire(servers, requests, expected)
    texts = [tokenizer.decode(whole, skip_special_tokens=True).strip() for whole in expected]
    assert [answer.text.strip() for answer in answers] == texts * 2


def test_the_older_way_puts_the_source_language_last(pair: Pair, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pair.folder, tmp_path / "legacy"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"legacy_behaviour": True}))
    theirs = NllbTokenizer.from_pretrained(folder, src_lang="fra_Latn")
    ids = [piece.id for piece in Checkpoint(folder).encode_source("Open the file.", "fra_Latn")]
    assert ids == theirs("Open the file.").input_ids
