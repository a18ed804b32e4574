"""mT5 folders as downloaded: what Transformers computes with them, we do too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MT5Config, MT5ForConditionalGeneration

from tests.support.pairs import POSITIONS, Pair, train_pieces, varied
from tests.support.servers import ServerThread

SHORT = ("Open the file.", "Save all changes now", "naïve café 😀")


def make_pair(folder: Path) -> Pair:
    folder.mkdir()
    order: dict[str, Any] = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    pieces = train_pieces(folder / "spiece.model", 400, byte_fallback=True, **order)
    config = MT5Config(
        vocab_size=len(pieces) + 12,
        d_model=32,
        d_kv=12,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        n_positions=POSITIONS,
    )
    model = MT5ForConditionalGeneration(config)
    torch.manual_seed(5)
    model.lm_head.weight = torch.nn.Parameter(torch.randn(config.vocab_size, 32) * 0.3)
    return Pair.of(varied(model, scale=1.0), folder)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("mt5") / "mt5-tiny")


def test_encoder_output_and_logits(pair: Pair) -> None:
    assert (pair.checkpoint.description.family, pair.ours.config.gated) == ("mt5", True)
    pair.check_encoder()
    pair.check_logits(20)


def test_greedy_output_and_over_the_wire(pair: Pair, servers: ServerThread) -> None:
    outputs = [pair.check_greedy(pair.source_ids(text)) for text in SHORT]
    assert len({token for output in outputs for token in output}) > 5, "repetition proves little"
    pair.check_wire(servers, [(text, "", "") for text in SHORT], outputs)


def test_text_comes_back_whatever_the_characters(pair: Pair) -> None:
    tokenizer = pair.checkpoint.tokenizer
    for text in (*SHORT, "日本語 😀 naïve"):
        assert tokenizer.decode(tokenizer.encode_target(text)) == text
