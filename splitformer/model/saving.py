"""Writing a model as a folder of our own family."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from splitformer.model.families.splitformer import OwnConfig, SplitformerFamily
from splitformer.model.shapes import is_map
from splitformer.model.stored import SCALES
from splitformer.model.transformer import Transformer
from splitformer.native import quantised


def save_checkpoint(
    folder: Path,
    model: Transformer,
    config: OwnConfig,
    tokenizer: Path,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write a model as a checkpoint folder; tied tensors are stored once.

    Args:
        folder: Where to; made if it is missing.
        model: The model.
        config: What config.json shall say of it.
        tokenizer: The tokenizer's file, which is copied.
        dtype: Type of the weights; int8: linear maps in 8 bits with a scale a row, as plans hold
            them, and the rest in half precision.
    """
    folder.mkdir(parents=True, exist_ok=True)
    family = SplitformerFamily()
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if family.stored(name, config.architecture).names == (name,):
            tensors |= _stored(name, tensor.detach(), dtype)
    save_file(tensors, folder / "model.safetensors")
    text = json.dumps(config.to_dict(), indent=2, ensure_ascii=False)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    (folder / config.tokenizer_file).write_bytes(tokenizer.read_bytes())


def _stored(name: str, tensor: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    if dtype is not torch.int8:
        return {name: tensor.to(dtype).contiguous()}
    if not is_map(name):
        return {name: tensor.to(torch.float16).contiguous()}
    weights, scales = quantised(tensor.float().numpy())
    return {name: torch.from_numpy(weights), name + SCALES: torch.from_numpy(scales)}
