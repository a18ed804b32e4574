"""Damaged, hostile and unusual folders: a reason for each, and nothing half loaded."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MarianMTModel

from splitformer.errors import ConfigurationError
from splitformer.model.checkpoint import Checkpoint
from tests.parity.test_marian import make_pair
from tests.support.pairs import Pair

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED = "pytorch_model.bin"
QUERY = "model.encoder.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("loading") / "opus-mt-xx-yy")


@pytest.fixture
def folder(pair: Pair, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pair.folder, tmp_path / "copy"))


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def retensor(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def same_numbers(folder: Path, pair: Pair) -> None:
    loaded = Checkpoint(folder).load().state_dict()
    for name, tensor in pair.ours.state_dict().items():
        torch.testing.assert_close(loaded[name], tensor, atol=0, rtol=0)


def pickled(folder: Path, pair: Pair, name: str = PICKLED) -> Path:
    """Turn a folder into an older one."""
    torch.save(pair.theirs.state_dict(), folder / name)
    (folder / WEIGHTS).unlink()
    return folder / name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_loaded_exactly(folder: Path, dtype: torch.dtype) -> None:
    retensor(folder, lambda t: t.update({n: x.to(dtype) for n, x in t.items()}))
    stored = load_file(folder / WEIGHTS)
    encoder = Checkpoint(folder).load_encoder()
    query = encoder.state_dict()["layers.0.self_attention.query.weight"]
    assert query.dtype == torch.float32
    assert torch.equal(query, stored[QUERY].float())


def test_shards_are_the_whole(pair: Pair, folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    pair.theirs.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 3
    same_numbers(folder, pair)
    assert Checkpoint(folder).fingerprint == pair.checkpoint.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(QUERY), rf"missing tensor '{QUERY}'"),
        (lambda t: t.update({"model.more": torch.ones(2)}), "unexpected tensor 'model.more'"),
        (
            lambda t: t.update({QUERY: torch.ones(32, 31)}),
            rf"'{QUERY}' must have shape \[32, 32\], got \[32, 31\]",
        ),
        (
            lambda t: t.update({"final_logits_bias": torch.zeros(7)}),
            r"'final_logits_bias' must have shape",
        ),
    ],
)
def test_missing_extra_and_misshapen_tensors(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], Any], message: str
) -> None:
    retensor(folder, change)
    with pytest.raises(ConfigurationError, match=message):
        Checkpoint(folder)


def test_the_bias_of_the_logits_may_be_missing(folder: Path) -> None:
    retensor(folder, lambda t: t.pop("final_logits_bias"))
    assert not Checkpoint(folder).load_decoder().state_dict()["output.bias"].any()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nans_and_infinities(folder: Path, value: float) -> None:
    retensor(folder, lambda t: t[QUERY][3].fill_(value))
    checkpoint = Checkpoint(folder)
    with pytest.raises(ConfigurationError, match=rf"'{QUERY}': must hold finite numbers"):
        checkpoint.load_encoder()
    checkpoint.load_decoder()


def test_integers_are_no_weights(folder: Path) -> None:
    retensor(folder, lambda t: t.update({QUERY: torch.ones(32, 32, dtype=torch.int8)}))
    with pytest.raises(ConfigurationError, match=rf"'{QUERY}' must hold F32, F16, BF16, got I8"):
        Checkpoint(folder).load_encoder()


def test_a_truncated_shard(pair: Pair, folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    pair.theirs.save_pretrained(folder, max_shard_size="20KB")
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ConfigurationError, match=rf"{shard.name}: cannot be read"):
        Checkpoint(folder)
    shard.unlink()
    with pytest.raises(ConfigurationError, match=rf"{shard.name}: cannot be read"):
        Checkpoint(folder)


@pytest.mark.parametrize("path", ["../outside.safetensors", "/etc/passwd", "a/b.safetensors", ".."])
def test_an_index_that_leaves_the_folder(pair: Pair, folder: Path, path: str) -> None:
    os.replace(folder / WEIGHTS, folder.parent / "outside.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": {QUERY: path}}))
    with pytest.raises(ConfigurationError, match="must be a bare file name"):
        Checkpoint(folder)


@pytest.mark.parametrize("index", [{}, {"weight_map": []}, {"weight_map": {QUERY: 3}}])
def test_an_index_that_is_none(folder: Path, index: object) -> None:
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(ConfigurationError, match=f"{INDEX}:"):
        Checkpoint(folder)


def test_an_index_that_promises_too_much(folder: Path) -> None:
    os.replace(folder / WEIGHTS, folder / "model-1.safetensors")
    names = dict.fromkeys(load_file(folder / "model-1.safetensors"), "model-1.safetensors")
    more = {"model.more": "model-1.safetensors"}
    (folder / INDEX).write_text(json.dumps({"weight_map": names | more}))
    with pytest.raises(ConfigurationError, match=r"missing tensor 'model\.more', which"):
        Checkpoint(folder)


def test_pickled_tensors_are_read_once_and_kept(pair: Pair, folder: Path) -> None:
    source = pickled(folder, pair)
    same_numbers(folder, pair)
    kept = (folder / WEIGHTS).read_bytes()
    source.write_bytes(b"")  # unreadable from here on, and changed
    with pytest.raises(ConfigurationError, match=PICKLED):
        Checkpoint(folder)
    assert (folder / WEIGHTS).read_bytes() == kept
    source.unlink()
    same_numbers(folder, pair)
    assert not list(folder.glob(".*")), "nothing half written is left"


def test_pickled_tensors_that_change_are_read_again(pair: Pair, folder: Path) -> None:
    source = pickled(folder, pair)
    first = Checkpoint(folder).fingerprint
    assert Checkpoint(folder).fingerprint == first
    tensors = {name: tensor * 2 for name, tensor in pair.theirs.state_dict().items()}
    torch.save(tensors, source)
    assert Checkpoint(folder).fingerprint != first


def test_pickled_shards(pair: Pair, folder: Path) -> None:
    state = pair.theirs.state_dict()
    names, half = list(state), len(state) // 2
    for part, mine in (("a.bin", names[:half]), ("b.bin", names[half:])):
        torch.save({name: state[name].clone() for name in mine}, folder / part)
    places = {name: "a.bin" if i < half else "b.bin" for i, name in enumerate(names)}
    (folder / f"{PICKLED}.index.json").write_text(json.dumps({"weight_map": places}))
    (folder / WEIGHTS).unlink()
    same_numbers(folder, pair)


class Harmful:
    """What a pickle may do when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_pickled_code_is_refused_and_does_not_run(pair: Pair, folder: Path) -> None:
    source = pickled(folder, pair)
    torch.save({QUERY: Harmful(folder / "it-ran")}, source)
    with pytest.raises(
        ConfigurationError, match=rf"{PICKLED}: refused: it holds more than tensors"
    ):
        Checkpoint(folder)
    source.write_bytes(pickle.dumps({QUERY: Harmful(folder / "it-ran")}))
    with pytest.raises(ConfigurationError, match=PICKLED):
        Checkpoint(folder)
    assert not (folder / "it-ran").exists()
    assert not (folder / WEIGHTS).exists()


@pytest.mark.parametrize("content", [b"", b"no tensors", b"PK\x03\x04broken"])
def test_pickles_that_are_none(pair: Pair, folder: Path, content: bytes) -> None:
    pickled(folder, pair).write_bytes(content)
    with pytest.raises(ConfigurationError, match=PICKLED):
        Checkpoint(folder)


def test_a_folder_that_cannot_be_written_to(
    pair: Pair, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pickled(folder, pair)

    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(ConfigurationError, match="cannot be written beside the pickled tensors"):
        Checkpoint(folder)
    assert not list(folder.glob(".*"))


def test_a_vocabulary_that_does_not_match(folder: Path) -> None:
    edit(folder / "vocab.json", lambda v: v.update({f"more{i}": 90 + i for i in range(400)}))
    with pytest.raises(ConfigurationError, match="more than the source vocabulary of"):
        Checkpoint(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("<unk>"), "the vocabulary has no '<unk>'"),
        (lambda v: v.update({"▁x": -1}), "the id of '▁x' must be an integer of at least 0, got -1"),
        (lambda v: v.update({"▁x": "7"}), "the id of '▁x' must be an integer"),
    ],
)
def test_a_vocabulary_that_is_none(
    folder: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    edit(folder / "vocab.json", change)
    with pytest.raises(ConfigurationError, match=message):
        Checkpoint(folder)


@pytest.mark.parametrize("file", ["source.spm", "target.spm", "vocab.json", "config.json"])
def test_files_that_are_missing_or_broken(folder: Path, file: str) -> None:
    (folder / file).write_bytes(b"\x00")
    with pytest.raises(ConfigurationError, match=file):
        Checkpoint(folder)
    (folder / file).unlink()
    with pytest.raises(ConfigurationError, match=f"{file}: cannot be read"):
        Checkpoint(folder)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model_type", "bert", "model_type: must be one of .*, got 'bert'"),
        ("model_type", None, "got None"),
        ("d_model", "32", "d_model: must be an integer, got '32'"),
        ("d_model", 33, r"d_model: must be a multiple of heads \(4\), got 33"),
        ("activation_function", "mish", "activation_function: must be one of .*, got 'mish'"),
        ("scale_embedding", 1, "scale_embedding: must be true or false, got 1"),
        ("encoder_layers", 0, "encoder_layers: must be a positive integer, got 0"),
        ("encoder_layers", 4, "missing tensor 'model.encoder.layers.3"),
        ("encoder_layers", 2, "unexpected tensor 'model.encoder.layers.2"),
        ("vocab_size", 500, "must have shape"),
    ],
)
def test_configurations_that_do_not_fit(
    folder: Path, field: str, value: object, message: str
) -> None:
    edit(folder / "config.json", lambda v: v.update({field: value}))
    with pytest.raises(ConfigurationError, match=message):
        Checkpoint(folder)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("eos_token_id", 99999, "forced_eos_token_id: must be the end token 99999, got 0"),
        ("eos_token_id", [0, 1], "eos_token_id: must be one id"),
        ("decoder_start_token_id", 99999, "must be an id below"),
        ("bad_words_ids", [[1, 2]], "bad_words_ids: must hold lists of one id each"),
        ("bad_words_ids", [[99999]], "never_generated: must be an id below"),
        ("forced_eos_token_id", 3, "forced_eos_token_id: must be the end token 0, got 3"),
    ],
)
def test_generation_settings_that_do_not_fit(
    folder: Path, field: str, value: object, message: str
) -> None:
    edit(folder / "generation_config.json", lambda v: v.update({field: value}))
    with pytest.raises(ConfigurationError, match=message):
        Checkpoint(folder)


def test_older_folders_have_generation_settings_in_their_configuration(
    pair: Pair, folder: Path
) -> None:
    generation = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").unlink()
    edit(folder / "config.json", lambda v: v.update(generation))
    assert Checkpoint(folder).description.identity() == pair.checkpoint.description.identity()
    assert isinstance(pair.theirs, MarianMTModel)
