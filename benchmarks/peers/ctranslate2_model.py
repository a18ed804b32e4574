"""Our weights as a CTranslate2 model, through its own specification classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from torch import Tensor

from splitformer.model import Transformer

COMPUTE_TYPES = {"int8": "int8", "fp32": "float32"}
"""Our names of precisions, and CTranslate2's."""

ACTIVATIONS = {
    "relu": ctranslate2.specs.Activation.RELU,
    "silu": ctranslate2.specs.Activation.SWISH,
    "gelu": ctranslate2.specs.Activation.GELU,
}


def token_names(size: int) -> list[str]:
    """Return one made-up token per id; CTranslate2 works with strings."""
    special = ["<pad>", "</s>", "<unk>", "<xx>"]
    return special + [f"w{i}" for i in range(len(special), size)]


def convert(load: Callable[[], Transformer], folder: Path, precision: str) -> Path:
    """Write a model in CTranslate2's format, with weights in "int8" or "fp32".

    A folder that holds a converted model already is taken as it is, and nothing is loaded.
    """
    if (folder / "model.bin").exists():
        return folder
    model = load()
    config = model.config
    spec = ctranslate2.specs.TransformerSpec.from_config(
        (config.encoder_layers, config.decoder_layers),
        config.heads,
        pre_norm=config.norm == "pre",
        activation=ACTIVATIONS[config.activation],
    )
    weights = {name: _array(tensor) for name, tensor in model.state_dict().items()}
    table = model.encoder.embedding.positions
    assert table is not None  # this conversion knows no relative positions
    positions = _array(table)
    _fill_stack(spec.encoder, weights, "encoder", positions, config.scale_embeddings)
    _fill_stack(spec.decoder, weights, "decoder", positions, config.scale_embeddings)
    spec.decoder.projection.weight = weights["decoder.output.weight"]
    if "decoder.output.bias" in weights:
        spec.decoder.projection.bias = weights["decoder.output.bias"]
    names = token_names(config.target_vocabulary_size)
    spec.register_source_vocabulary(names)
    spec.register_target_vocabulary(names)
    spec.config.decoder_start_token = "<xx>"
    spec.config.add_source_eos = False
    spec.validate()
    spec.optimize(quantization="int8" if precision == "int8" else None)
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    return folder


def _fill_stack(
    stack: Any, weights: Mapping[str, Any], prefix: str, positions: Any, scaled: bool
) -> None:
    embeddings = stack.embeddings[0] if isinstance(stack.embeddings, list) else stack.embeddings
    embeddings.weight = weights[f"{prefix}.embedding.tokens.weight"]
    stack.scale_embeddings = scaled
    stack.position_encodings.encodings = positions
    if f"{prefix}.norm.weight" in weights:
        _fill_norm(stack.layer_norm, weights, f"{prefix}.norm")
    for i, layer in enumerate(stack.layer):
        _fill_layer(layer, weights, f"{prefix}.layers.{i}")


def _fill_layer(layer: Any, weights: Mapping[str, Any], prefix: str) -> None:
    own = f"{prefix}.self_attention"
    _fill_linear(layer.self_attention.linear[0], weights, own, ("query", "key", "value"))
    _fill_linear(layer.self_attention.linear[1], weights, own, ("output",))
    _fill_norm(layer.self_attention.layer_norm, weights, f"{own}_residual.norm")
    if hasattr(layer, "attention"):
        cross = f"{prefix}.cross_attention"
        _fill_linear(layer.attention.linear[0], weights, cross, ("query",))
        _fill_linear(layer.attention.linear[1], weights, cross, ("key", "value"))
        _fill_linear(layer.attention.linear[2], weights, cross, ("output",))
        _fill_norm(layer.attention.layer_norm, weights, f"{cross}_residual.norm")
    feed_forward = f"{prefix}.feed_forward"
    _fill_linear(layer.ffn.linear_0, weights, feed_forward, ("inner",))
    _fill_linear(layer.ffn.linear_1, weights, feed_forward, ("outer",))
    _fill_norm(layer.ffn.layer_norm, weights, f"{feed_forward}_residual.norm")


def _fill_linear(
    linear: Any, weights: Mapping[str, Any], prefix: str, parts: tuple[str, ...]
) -> None:
    linear.weight = np.concatenate([weights[f"{prefix}.{part}.weight"] for part in parts])
    linear.bias = np.concatenate([weights[f"{prefix}.{part}.bias"] for part in parts])


def _fill_norm(norm: Any, weights: Mapping[str, Any], prefix: str) -> None:
    norm.gamma = weights[f"{prefix}.weight"]
    norm.beta = weights[f"{prefix}.bias"]


def _array(tensor: Tensor) -> Any:
    return tensor.detach().float().numpy().copy()  # quantising works in place
