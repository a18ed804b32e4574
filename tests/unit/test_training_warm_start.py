"""A run that starts from an exported model's weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from splitformer.model import Transformer, TransformerConfig
from splitformer.model.families.splitformer import OwnConfig
from splitformer.model.saving import save_checkpoint
from training.corpus import Example
from training.curve import HEADER, Progress
from training.data import tokenize
from training.optimizer import OptimizerSettings
from training.recipe import Genre
from training.runtime import Workspace
from training.split import Part
from training.tokenizer import Tokenizer, TokenizerSettings, train_tokenizer
from training.train import Trainer, TrainSettings
from training.warm_start import Shipped, read_progress

SHAPE = TransformerConfig(
    source_vocabulary_size=275,
    target_vocabulary_size=275,
    d_model=8,
    heads=2,
    encoder_layers=1,
    decoder_layers=1,
    d_feed_forward=16,
    max_positions=16,
)
ABOUT = OwnConfig("tiny", SHAPE, 1, 0, 2, "en", {"de": 3})
EXAMPLE = Example("Open.", "gimp", Genre.INTERFACE, {"de": "Open."})


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "work")
    train_tokenizer(["Open the file."] * 20, workspace.tokenizer, TokenizerSettings(pieces=275))
    tokenize([EXAMPLE] * 9, Tokenizer(workspace.tokenizer)).save(workspace.root / "training.npz")
    return workspace


@pytest.fixture
def curve(tmp_path: Path) -> Path:
    file = tmp_path / "curve.csv"
    file.write_text(",".join(HEADER) + "\n20,27.0,1000,2,2,,,,,,\n30,40.5,2500,1,1,,,,,,\n")
    return file


@pytest.fixture
def folder(tmp_path: Path, workspace: Workspace) -> Path:
    torch.manual_seed(5)
    save_checkpoint(tmp_path / "model", Transformer(SHAPE), ABOUT, workspace.tokenizer)
    return tmp_path / "model"


def test_a_trainer_takes_up_the_weights_and_the_curve(
    workspace: Workspace, curve: Path, folder: Path
) -> None:
    settings = TrainSettings(minutes=1, bf16=False)
    Shipped(folder, curve).warm_start(workspace.run, 1000, settings.optimizer)
    arrays = workspace.arrays(Part.TRAINING)
    trainer = Trainer(Transformer(SHAPE), arrays, [], settings, workspace.run)
    torch.manual_seed(5)
    for name, tensor in Transformer(SHAPE).state_dict().items():
        found = trainer.model.state_dict()[name]
        torch.testing.assert_close(found, tensor, rtol=1e-3, atol=1e-3)  # stored in fp16
    assert (trainer.progress.step, trainer.progress.tokens, trainer.consumed) == (30, 2500, 0)
    assert (workspace.run / "curve.csv").read_text().splitlines()[1:] == (
        curve.read_text().splitlines()[1:]
    )


def test_rounds_that_were_read_are_not_read_again(curve: Path) -> None:
    wanted = Progress(30, 40.5, 2500, round=3, probed=40.5, saved=40.5, earlier=40.5)
    assert read_progress(curve, 1000) == wanted


def test_what_does_not_fit_is_refused(workspace: Workspace, curve: Path, folder: Path) -> None:
    shipped, settings = Shipped(folder, curve), OptimizerSettings()
    shipped.check_tokenizer(workspace.tokenizer)
    workspace.tokenizer.write_bytes(workspace.tokenizer.read_bytes() + b" ")
    with pytest.raises(ValueError, match=r"tokenizer: .* must be that of"):
        shipped.check_tokenizer(workspace.tokenizer)
    shipped.warm_start(workspace.run, 1000, settings)
    with pytest.raises(FileExistsError, match=r"work: .* must not exist yet"):
        shipped.warm_start(workspace.run, 1000, settings)
    curve.write_text("")
    with pytest.raises(ValueError, match=r"curve: .* must have rows"):
        read_progress(curve, 1000)
