"""BART folders as downloaded: what Transformers computes with them, we do too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration, BartTokenizer

from splitformer.model.checkpoint import Checkpoint
from tests.support.checkpoints import SENTENCES
from tests.support.hub_tokenizers import train_byte_level
from tests.support.pairs import POSITIONS, Pair, varied
from tests.support.servers import ServerThread

SHORT = ("Open the file.", "Save all changes now", "naïve café 😀")
TEXTS = (
    *(*SENTENCES, "Größe: 5 µm (ungefähr) 😀", "  two  spaces ", "A <mask> file."),
    *("don't", " leading", "日本語"),
)


def make_pair(folder: Path, forced_first: int | None) -> Pair:
    trained = json.loads(train_byte_level().to_str())["model"]
    tokenizer = BartTokenizer(
        vocab=trained["vocab"], merges=[tuple(merge) for merge in trained["merges"]]
    )
    tokenizer.save_pretrained(folder)
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_layers=2,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=48,
        max_position_embeddings=POSITIONS,
        init_std=0.05,
    )
    torch.manual_seed(5)
    model = BartForConditionalGeneration(config)
    for stack in (model.model.encoder, model.model.decoder):
        stack.embed_positions.weight.data.normal_(std=0.3)
    model.generation_config.forced_bos_token_id = forced_first
    return Pair.of(varied(model), folder)


@pytest.fixture(scope="module", params=[None, 0], ids=["plain", "forced-first"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("bart") / "bart-tiny", request.param)


def test_encoder_output_and_logits(pair: Pair) -> None:
    pair.check_encoder()
    pair.check_logits()


def test_greedy_output(pair: Pair) -> None:
    outputs = [pair.check_greedy(pair.source_ids(text)) for text in SHORT]
    forced = pair.theirs.generation_config.forced_bos_token_id
    assert all(output[0] == 2 and forced in (None, output[1]) for output in outputs)
    assert len({token for output in outputs for token in output}) > 5, "repetition proves little"


@pytest.mark.parametrize("text", TEXTS)
def test_tokenizer(pair: Pair, text: str) -> None:
    theirs, ours = BartTokenizer.from_pretrained(pair.folder), pair.checkpoint.tokenizer
    ids = theirs(text).input_ids
    assert pair.source_ids(text) == ids
    assert ours.encode_target(text) == ids[1:-1]
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


def test_a_character_of_several_tokens_comes_whole(pair: Pair) -> None:
    detokenizer = pair.checkpoint.tokenizer.detokenizer()
    ids = pair.checkpoint.tokenizer.encode_target("a😀b")
    assert len(ids) > 3
    assert [text for text in map(detokenizer.add, ids) if text] == ["a", "😀", "b"]


def test_over_the_wire(pair: Pair, servers: ServerThread) -> None:
    requests = [(text, "", "") for text in SHORT]
    expected = [pair.check_greedy(pair.source_ids(text)) for text in SHORT]
    pair.check_wire(servers, requests, expected)


def test_filters_that_a_folder_suggests_are_theirs(
    pair: Pair, servers: ServerThread, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(pair.folder, tmp_path / "filtering"))
    filters = {"no_repeat_ngram_size": 2, "repetition_penalty": 1.1}
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | filters | {"num_beams": 4}))
    theirs = BartForConditionalGeneration.from_pretrained(folder).eval()
    filtering = Pair(theirs, folder, Checkpoint(folder), pair.ours)
    expected = [filtering.theirs_generate(pair.source_ids(text)) for text in SHORT]
    assert expected != [pair.theirs_generate(pair.source_ids(text)) for text in SHORT]
    filtering.check_wire(servers, [(text, "", "") for text in SHORT], expected)


def test_older_folders_have_vocabulary_and_merges(pair: Pair, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pair.folder, tmp_path / "older"))
    whole = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").unlink()
    special = {token["content"]: token["id"] for token in whole["added_tokens"]}
    (folder / "vocab.json").write_text(json.dumps(whole["model"]["vocab"] | special))
    merges = [" ".join(merge) for merge in whole["model"]["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    older = Checkpoint(folder)
    for text in TEXTS:
        if "<mask>" not in text:
            assert [piece.id for piece in older.encode_source(text)] == pair.source_ids(text)
    assert [piece.id for piece in older.encode_source(" <mask>")] == [0, 4, 2], "no space before"
