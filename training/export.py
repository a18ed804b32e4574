"""Turns a training checkpoint into a model folder that the services load."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from splitformer.model import Transformer
from splitformer.model.families.splitformer import OwnConfig
from splitformer.model.saving import save_checkpoint
from training.runtime import Workspace, architecture
from training.tokenizer import EOS, PAD, UNKNOWN, Tokenizer, language_ids

MODEL_NAME = "en-multi"
SOURCES_FILE = "sources.json"


def load_trained(checkpoint: Path, vocabulary: int) -> Transformer:
    """Returns the averaged model of a training checkpoint, ready to translate."""
    model = Transformer(architecture(vocabulary))
    model.load_state_dict(torch.load(checkpoint, weights_only=True)["average"])
    return model.eval()


def describe(model: Transformer, name: str = MODEL_NAME) -> OwnConfig:
    """Returns what config.json will say of the model."""
    return OwnConfig(
        name=name,
        architecture=model.config,
        eos_id=EOS,
        pad_id=PAD,
        unk_id=UNKNOWN,
        source_language="en",
        target_languages=language_ids(),
    )


def export(workspace: Workspace, folder: Path) -> None:
    """Writes the workspace's checkpoint as a model folder, weights in half precision.

    The list of sources goes along; the model card is made by ``card``.
    """
    tokenizer = Tokenizer(workspace.tokenizer)
    model = load_trained(workspace.run / "checkpoint.pt", len(tokenizer))
    save_checkpoint(folder, model, describe(model), workspace.tokenizer)
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes for the owner alone
    if workspace.manifest.exists():
        shutil.copyfile(workspace.manifest, folder / SOURCES_FILE)
