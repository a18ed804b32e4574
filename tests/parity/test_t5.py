"""T5 folders as downloaded: what Transformers computes with them, we do too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import T5Config, T5ForConditionalGeneration, T5Tokenizer

from splitformer.errors import FailedPreconditionError
from splitformer.model.checkpoint import Checkpoint
from splitformer_client import connect
from tests.support.checkpoints import SENTENCES
from tests.support.hub_tokenizers import train_unigram
from tests.support.pairs import POSITIONS, Pair, train_pieces, varied
from tests.support.servers import ServerThread

SHORT = ("Open the file.", "Save all changes now", "naïve café 😀")
TEXTS = (
    *SENTENCES,
    "Größe: 5 µm (ungefähr) 😀",
    "two  spaces",
    "The <extra_id_0> is <extra_id_1>.",
)
TASKS = {
    "summarization": {"prefix": "summarize: "},
    "translation_en_to_de": {"prefix": "translate English to German: "},
    "translation_en_to_fr": {"prefix": "translate English to French: "},
}
KINDS: dict[str, dict[str, Any]] = {
    "t5": {"feed_forward_proj": "relu", "task_specific_params": TASKS},
    "t5-1.1": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
}


def make_pair(folder: Path, **options: object) -> Pair:
    trained = json.loads(train_unigram(("<pad>", "</s>", "<unk>")).to_str())["model"]["vocab"]
    extra = [(f"<extra_id_{i}>", 0.0) for i in reversed(range(100))]
    T5Tokenizer(vocab=[*map(tuple, trained), *extra]).save_pretrained(folder)
    return save_model(folder, len(trained) + 128, **options)


def save_model(folder: Path, size: int, **options: object) -> Pair:
    config = T5Config(
        vocab_size=size,
        d_model=32,
        d_kv=12,
        d_ff=48,
        num_layers=3,
        num_decoder_layers=2,
        num_heads=4,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        n_positions=POSITIONS,
        decoder_start_token_id=0,
        **options,
    )
    model = T5ForConditionalGeneration(config)
    torch.manual_seed(5)
    model.lm_head.weight = torch.nn.Parameter(torch.randn(size, 32) * 0.1)
    if config.scale_decoder_outputs:
        model.tie_weights()
        model.lm_head.weight = model.shared.weight
    return Pair.of(varied(model, scale=1.0), folder)


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def pair(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("t5") / kind, **KINDS[kind])


def test_encoder_output_and_logits(pair: Pair) -> None:
    pair.check_encoder()
    pair.check_logits(20)


def test_the_output_projection_is_stored_or_shared(pair: Pair, kind: str) -> None:
    weights = pair.ours.decoder.state_dict()
    same = torch.equal(weights["output.weight"], weights["embedding.tokens.weight"])
    assert same == (kind == "t5")
    assert pair.checkpoint.description.architecture.scale_output == (kind == "t5")


def test_greedy_output(pair: Pair) -> None:
    outputs = [pair.check_greedy(pair.source_ids(text)) for text in SHORT]
    assert all(output[0] == 0 for output in outputs)
    assert len({token for output in outputs for token in output}) > 5, "repetition proves little"


@pytest.mark.parametrize("text", TEXTS)
def test_tokenizer(pair: Pair, text: str) -> None:
    theirs, ours = T5Tokenizer.from_pretrained(pair.folder), pair.checkpoint.tokenizer
    ids = theirs(text).input_ids
    assert pair.source_ids(text) == ids
    assert ours.encode_target(text) == ids[:-1]
    expected = theirs.decode(ids, skip_special_tokens=True)
    assert ours.decode(ids).strip() == expected.strip()


def test_over_the_wire(pair: Pair, servers: ServerThread) -> None:
    requests = [(text, "", "") for text in SHORT]
    expected = [pair.check_greedy(pair.source_ids(text)) for text in SHORT]
    pair.check_wire(servers, requests, expected)


@pytest.mark.parametrize("kind", ["t5"], indirect=True)
def test_a_task_binds_the_memory(pair: Pair, servers: ServerThread) -> None:
    theirs = T5Tokenizer.from_pretrained(pair.folder)
    expected = theirs("translate English to German: Open it").input_ids
    assert pair.source_ids("Open it", "en", "de") == expected
    whole = pair.check_greedy(expected)
    pair.check_wire(servers, [("Open it", "en", "de")], [whole])
    encoder = servers.start_encoder(pair.folder)
    decoder = servers.start_decoder(pair.folder, encoder)
    with connect(encoder.address, decoder.address) as client:
        info = client.encoder_info()
        assert (info.language_on_decoder, info.target_languages) == (False, ("de", "fr"))
        assert info.source_language == "en"
        memory = client.encode("Open it", target_language="de")
        *prefix, first, last = (piece for piece in memory.header.source_tokens)
        assert (first.end, last.begin) == (len("Open it"), len("Open it"))
        assert all(0 <= piece.begin <= piece.end <= len("Open it") for piece in prefix)
        with pytest.raises(FailedPreconditionError, match=r"must be 'de'.*got 'fr'"):
            client.open_session(memory, language="fr")


def test_pieces_alone(tmp_path: Path) -> None:
    """Folders without tokenizer.json, as mT5's."""
    order: dict[str, Any] = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    pieces = train_pieces(tmp_path / "spiece.model", 200, **order)
    pair = save_model(tmp_path, len(pieces) + 128, **KINDS["t5-1.1"])
    tokenizer = pair.checkpoint.tokenizer
    for text in (*SENTENCES[:7], "naïve café"):
        ids = pair.source_ids(text)
        assert ids[-1] == 1
        assert 2 in ids or tokenizer.decode(ids) == text
    assert tokenizer.decode([0, *tokenizer.encode_target("Open it"), 1]) == "Open it"


def test_configurations_as_published_say_whether_outputs_are_scaled(
    pair: Pair, kind: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(pair.folder, tmp_path / "published"))
    values = json.loads((folder / "config.json").read_text())
    del values["scale_decoder_outputs"]
    values["tie_word_embeddings"] = kind == "t5"
    (folder / "config.json").write_text(json.dumps(values))
    expected = pair.checkpoint.description.architecture
    assert Checkpoint(folder).description.architecture == expected


def test_old_checkpoints_have_a_table_that_nobody_uses(pair: Pair, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pair.folder, tmp_path / "old"))
    tensors = load_file(folder / "model.safetensors")
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    save_file(tensors | {unused: torch.zeros(8, 4)}, folder / "model.safetensors")
    Checkpoint(folder).load_decoder()
