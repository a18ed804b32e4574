"""Our weights as a Hugging Face Marian model."""

from __future__ import annotations

from typing import Any

import torch
from transformers import MarianConfig, MarianMTModel

from splitformer.model import Transformer

OUR_NAMES = {
    "self_attn": "self_attention",
    "encoder_attn": "cross_attention",
    "self_attn_layer_norm": "self_attention_residual.norm",
    "encoder_attn_layer_norm": "cross_attention_residual.norm",
    "final_layer_norm": "feed_forward_residual.norm",
    "fc1": "feed_forward.inner",
    "fc2": "feed_forward.outer",
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "out_proj": "output",
}
"""Parts of the names of Marian's tensors, and ours."""


def convert(model: Transformer, start: int, eos: int, pad: int) -> Any:
    """Return a `MarianMTModel` that computes what `model` does; post-norm SiLU models only."""
    ours = model.config
    assert (ours.norm, ours.activation, ours.gated) == ("post", "silu", False)
    theirs = MarianMTModel(
        MarianConfig(
            vocab_size=ours.target_vocabulary_size,
            d_model=ours.d_model,
            encoder_layers=ours.encoder_layers,
            decoder_layers=ours.decoder_layers,
            encoder_attention_heads=ours.heads,
            decoder_attention_heads=ours.heads,
            encoder_ffn_dim=ours.d_feed_forward,
            decoder_ffn_dim=ours.d_feed_forward,
            max_position_embeddings=ours.max_positions,
            activation_function="swish",
            scale_embedding=ours.scale_embeddings,
            pad_token_id=pad,
            eos_token_id=eos,
            decoder_start_token_id=start,
            forced_eos_token_id=None,
        )
    ).eval()
    weights = model.state_dict()
    with torch.no_grad():
        theirs.model.shared.weight.copy_(weights["encoder.embedding.tokens.weight"])
        for name, tensor in theirs.model.named_parameters():
            parts = name.split(".")
            if "layers" in parts:
                tensor.copy_(weights[".".join(OUR_NAMES.get(part, part) for part in parts)])
    return theirs
