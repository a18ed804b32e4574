"""ByT5 folders as downloaded: what Transformers computes with them, we do too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import ByT5Tokenizer, T5Config, T5ForConditionalGeneration

from tests.support.checkpoints import SENTENCES
from tests.support.pairs import POSITIONS, Pair, varied
from tests.support.servers import ServerThread

SHORT = ("Open the file.", "Save all", "naïve 😀")


def make_pair(folder: Path) -> Pair:
    ByT5Tokenizer().save_pretrained(folder)
    config = T5Config(
        vocab_size=384,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=3,
        num_decoder_layers=1,
        num_heads=3,
        feed_forward_proj="gated-gelu",
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        n_positions=POSITIONS,
        tie_word_embeddings=False,
        decoder_start_token_id=0,
    )
    model = T5ForConditionalGeneration(config)
    torch.manual_seed(5)
    model.lm_head.weight = torch.nn.Parameter(torch.randn(384, 32) * 0.3)
    return Pair.of(varied(model, scale=1.0), folder)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("byt5") / "byt5-tiny")


def test_encoder_output_and_logits(pair: Pair) -> None:
    pair.check_encoder()
    pair.check_logits(20)


@pytest.mark.parametrize("text", [*SENTENCES, " a  b ", "\n\t", "日本語😀"])
def test_tokenizer(pair: Pair, text: str) -> None:
    theirs, ours = ByT5Tokenizer.from_pretrained(pair.folder), pair.checkpoint.tokenizer
    ids = theirs(text).input_ids
    assert pair.source_ids(text) == ids
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    *pieces, end = pair.checkpoint.encode_source(text)
    assert [piece.end for piece in pieces] == list(range(1, len(text.encode()) + 1))
    assert end.begin == len(text.encode())


def test_a_character_comes_with_its_last_byte(pair: Pair) -> None:
    detokenizer = pair.checkpoint.tokenizer.detokenizer()
    ids = pair.checkpoint.tokenizer.encode_target("é😀")
    assert [detokenizer.add(token) for token in ids] == ["", "é", "", "", "", "😀"]


def test_greedy_output_and_over_the_wire(pair: Pair, servers: ServerThread) -> None:
    outputs = [pair.check_greedy(pair.source_ids(text)) for text in SHORT]
    assert len({token for output in outputs for token in output}) > 5, "repetition proves little"
    pair.check_wire(servers, [(text, "", "") for text in SHORT], outputs)
