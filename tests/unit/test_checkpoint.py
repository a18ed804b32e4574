"""Checkpoints: halves load alone, fingerprints tell models apart, damage gets a reason."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from splitformer.errors import ConfigurationError
from splitformer.model import Transformer
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.families.splitformer import OwnConfig
from splitformer.model.saving import save_checkpoint
from splitformer.model.shapes import is_map
from splitformer.model.stored import SCALES
from splitformer.native import quantised
from tests.support.checkpoints import make_checkpoint, tiny_config


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


def edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@torch.inference_mode()
def test_the_halves_together_are_the_whole(tiny_model: Path) -> None:
    checkpoint = Checkpoint(tiny_model)
    encoder, decoder, whole = (
        checkpoint.load_encoder(),
        checkpoint.load_decoder(),
        checkpoint.load(),
    )
    source, lengths = torch.tensor([[4, 5, 6, 1]]), torch.tensor([4])
    memory = encoder(source, lengths)
    torch.testing.assert_close(memory, whole.encode(source, lengths), atol=0, rtol=0)
    target = torch.tensor([[3, 9, 10]])
    torch.testing.assert_close(
        decoder.unembed(decoder(target, memory, lengths)),
        whole(source, lengths, target),
        atol=0,
        rtol=0,
    )


@pytest.mark.parametrize("tied", [True, False])
def test_saved_and_loaded_again(tiny_model: Path, tmp_path: Path, tied: bool) -> None:
    config = OwnConfig.from_dict(json.loads((tiny_model / "config.json").read_text()))
    vocabulary = config.architecture.source_vocabulary_size
    model = Transformer(tiny_config(vocabulary, tie_output=tied, share_embeddings=tied))
    changed = dataclasses.replace(config, architecture=model.config)
    save_checkpoint(tmp_path, model, changed, tiny_model / "tokenizer.model", torch.float32)
    loaded = Checkpoint(tmp_path).load()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, atol=0, rtol=0)
    stored = load_file(tmp_path / "model.safetensors")
    assert ("decoder.output.weight" in stored) != tied


def in_8_bits(tiny_model: Path, folder: Path) -> Path:
    """A copy of a model whose maps are stored in 8 bits."""
    config = OwnConfig.from_dict(json.loads((tiny_model / "config.json").read_text()))
    model = Checkpoint(tiny_model).load()
    save_checkpoint(folder, model, config, tiny_model / "tokenizer.model", torch.int8)
    return folder


def test_maps_in_8_bits_are_those_that_a_service_would_make(
    tiny_model: Path, tmp_path: Path
) -> None:
    whole, stored = Checkpoint(tiny_model), Checkpoint(in_8_bits(tiny_model, tmp_path))
    for half, other in (
        (whole.encoder_half(), stored.encoder_half()),
        (whole.decoder_half(), stored.decoder_half()),
    ):
        for name in filter(is_map, half.shapes):
            weights, scales = quantised(half.array(name))
            again, same = quantised(other.array(name))
            assert np.array_equal(other.array(name), weights * scales[:, None])
            assert np.array_equal(weights, again)
            np.testing.assert_allclose(same, scales, rtol=1e-6)


def test_scales_are_part_of_a_model_and_checked(tiny_model: Path, tmp_path: Path) -> None:
    folder, name = in_8_bits(tiny_model, tmp_path), "encoder.layers.0.feed_forward.inner.weight"
    before, path = Checkpoint(folder).fingerprint, folder / "model.safetensors"
    tensors = load_file(path)
    tensors[name + SCALES][1] *= 2
    save_file(tensors, path)
    assert Checkpoint(folder).fingerprint != before
    tensors[name + SCALES][1] = torch.nan
    save_file(tensors, path)
    with pytest.raises(ConfigurationError, match=rf"'{name}': must hold finite numbers"):
        Checkpoint(folder).load_encoder()
    tensors[name + SCALES] = tensors[name + SCALES][1:].clone()
    save_file(tensors, path)
    with pytest.raises(ConfigurationError, match=rf"'{name}' must hold F32, F16, BF16, got I8"):
        Checkpoint(folder)


def test_the_fingerprint_is_the_contents_not_the_place(tiny_model: Path, folder: Path) -> None:
    assert Checkpoint(folder).fingerprint == Checkpoint(tiny_model).fingerprint


def test_every_part_changes_the_fingerprint(
    tiny_model: Path, other_model: Path, folder: Path
) -> None:
    original = Checkpoint(tiny_model).fingerprint
    assert Checkpoint(other_model).fingerprint != original
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.norm.bias"][0] += 1
    save_file(tensors, folder / "model.safetensors")
    changed = Checkpoint(folder).fingerprint
    assert changed != original
    edit(folder, source_language="nl")
    assert Checkpoint(folder).fingerprint not in (original, changed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bert"}, r"model_type: must be one of splitformer, marian.*, got 'bert'"),
        ({"eos_id": 100000}, "eos_id: must be an id below"),
        ({"eos_id": True}, "eos_id: must be an id below"),
        ({"target_languages": {"ja": -1}}, r"target_languages\.ja: must be an id"),
        ({"tokenizer": {"type": "sentencepiece", "file": "../x"}}, "must be a bare file name"),
        ({"tokenizer": {}}, "missing field 'file'"),
        ({"architecture": {}}, "architecture: missing field"),
    ],
)
def test_a_bad_config_gets_a_reason(folder: Path, changes: dict[str, object], message: str) -> None:
    edit(folder, **changes)
    with pytest.raises(ConfigurationError, match=message):
        Checkpoint(folder)


def test_missing_and_broken_files_get_a_reason(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"config\.json: cannot be read"):
        Checkpoint(tmp_path / "nowhere")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ConfigurationError, match=r"model\.safetensors: cannot be read"):
        Checkpoint(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"config\.json: is not JSON"):
        Checkpoint(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(ConfigurationError, match="must hold an object, got list"):
        Checkpoint(folder)


def test_missing_tensors_and_wrong_shapes_are_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"encoder.norm.bias": torch.zeros(5)}, path)
    message = r"'encoder\.norm\.bias' must have shape \[32\], got \[5\]"
    with pytest.raises(ConfigurationError, match=message):
        Checkpoint(folder)
    del tensors["encoder.norm.bias"]
    save_file(tensors, path)
    with pytest.raises(ConfigurationError, match=r"missing tensor 'encoder\.norm\.bias'"):
        Checkpoint(folder)


def test_the_same_seed_gives_the_same_model(tiny_model: Path, tmp_path: Path) -> None:
    twin = make_checkpoint(tmp_path / "twin", seed=0)
    assert Checkpoint(twin).fingerprint == Checkpoint(tiny_model).fingerprint
