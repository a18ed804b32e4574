"""Writing a model as a folder of our own family."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from splitformer.model.families.splitformer import OwnConfig, SplitformerFamily
from splitformer.model.transformer import Transformer


def save_checkpoint(
    folder: Path,
    model: Transformer,
    config: OwnConfig,
    tokenizer: Path,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write a model as a checkpoint folder; tied tensors are stored once."""
    folder.mkdir(parents=True, exist_ok=True)
    family = SplitformerFamily()
    tensors = {
        name: tensor.detach().to(dtype).contiguous()
        for name, tensor in model.state_dict().items()
        if family.stored(name, config.architecture).names == (name,)
    }
    save_file(tensors, folder / "model.safetensors")
    text = json.dumps(config.to_dict(), indent=2, ensure_ascii=False)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    (folder / config.tokenizer_file).write_bytes(tokenizer.read_bytes())
