"""Names of tensors that the families out of fairseq and Marian have in common."""

from __future__ import annotations

import re

from splitformer.model.config import TransformerConfig
from splitformer.model.families.family import Stored, unchanged
from splitformer.native import StoredArray

_PARTS = {
    "self_attention_residual.norm": "self_attn_layer_norm",
    "cross_attention_residual.norm": "encoder_attn_layer_norm",
    "feed_forward_residual.norm": "final_layer_norm",
    "feed_forward.inner": "fc1",
    "feed_forward.outer": "fc2",
    "self_attention.query": "self_attn.q_proj",
    "self_attention.key": "self_attn.k_proj",
    "self_attention.value": "self_attn.v_proj",
    "self_attention.output": "self_attn.out_proj",
    "cross_attention.query": "encoder_attn.q_proj",
    "cross_attention.key": "encoder_attn.k_proj",
    "cross_attention.value": "encoder_attn.v_proj",
    "cross_attention.output": "encoder_attn.out_proj",
}
"""Our names within a layer, without "weight" and "bias", and theirs."""

_OUTSIDE = {"embedding.norm": "layernorm_embedding", "norm": "layer_norm"}
_SHARED, _OUTPUT = "model.shared.weight", "lm_head.weight"
_TABLES = {half: f"model.{half}.embed_tokens.weight" for half in ("encoder", "decoder")}
_REDUNDANT = re.compile(
    r"(model\.)?((encoder|decoder)\.(embed_tokens\.weight|version)|shared\.weight)"
    r"|lm_head\.weight|final_logits_bias"
)
_FIXED_POSITIONS = re.compile(r"(model\.)?(encoder|decoder)\.embed_positions\.weights?")
POSITION_OFFSET = 2
"""Learned tables begin with two rows that no position has (for padding, in fairseq)."""


def stored_like_fairseq(name: str, config: TransformerConfig) -> Stored:
    """Say where checkpoints of this kind keep a tensor of ours; as `Family.stored`."""
    if name == "decoder.output.bias":
        return Stored(("final_logits_bias",), _only_row, optional=True)
    if name.endswith("embedding.positions"):
        half = name.partition(".")[0]
        return Stored(_either(f"model.{half}.embed_positions.weight"), _behind_offset)
    if name.endswith("embedding.tokens.weight") or name == "decoder.output.weight":
        names = [each for place in _tied(name, config) for each in _either(place)]
        return Stored(tuple(names), unchanged)
    return Stored(_either(f"model.{_renamed(name)}"))


def is_redundant_like_fairseq(name: str, config: TransformerConfig) -> bool:
    """True for further names of tied tensors, and for position vectors that can be computed."""
    fixed = config.positions.startswith("sinusoidal")
    return bool(_REDUNDANT.fullmatch(name) or (fixed and _FIXED_POSITIONS.fullmatch(name)))


def _tied(name: str, config: TransformerConfig) -> tuple[str, ...]:
    """Names of all tensors that a table is tied to, its own among them."""
    if config.share_embeddings:
        tables: tuple[str, ...] = (_SHARED, *_TABLES.values())
    elif name.startswith("encoder"):
        return (_TABLES["encoder"],)
    else:
        tables = (_TABLES["decoder"],)
    if config.tie_output:
        return (*tables, _OUTPUT)
    return (_OUTPUT,) if name == "decoder.output.weight" else tables


def _renamed(name: str) -> str:
    """Our name of a layer's or a stack's tensor, to theirs."""
    stem, _, leaf = name.rpartition(".")
    half, _, inner = stem.partition(".")
    if inner.startswith("layers."):
        _, number, part = inner.split(".", 2)
        return f"{half}.layers.{number}.{_PARTS[part]}.{leaf}"
    return f"{half}.{_OUTSIDE[inner]}.{leaf}"


def _either(name: str) -> tuple[str, str]:
    """A name, with and without the model around it."""
    return name, name.removeprefix("model.")


def _only_row(tensor: StoredArray) -> StoredArray:
    row: StoredArray = tensor[0]  # (1, V) -> (V,)
    return row


def _behind_offset(tensor: StoredArray) -> StoredArray:
    return tensor[POSITION_OFFSET:]
