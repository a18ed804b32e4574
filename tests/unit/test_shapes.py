"""Names and shapes known from the architecture are those of the modules that torch builds."""

from __future__ import annotations

import pytest
import torch

from splitformer.model import TransformerConfig
from splitformer.model.decoder import Decoder
from splitformer.model.encoder import Encoder
from splitformer.model.shapes import TABLE, decoder_shapes, encoder_shapes, parameters, weight_bytes
from tests.support.checkpoints import tiny_config

ARCHITECTURES: dict[str, dict[str, object]] = {
    "plain": {},
    "tied": {"tie_output": True, "share_embeddings": True, "output_bias": True},
    "post, learned": {"norm": "post", "positions": "learned", "normalize_embeddings": True},
    "relative": {
        "norm_kind": "rms",
        "positions": "relative",
        "relative_buckets": 8,
        "relative_distance": 16,
        "gated": True,
        "biases": False,
        "d_head": 5,
        "tie_output": False,
    },
    "audio": {
        "source_vocabulary_size": 0,
        "mel_bins": 8,
        "positions": "learned",
        "share_embeddings": False,
    },
}


@pytest.fixture(params=ARCHITECTURES)
def config(request: pytest.FixtureRequest) -> TransformerConfig:
    return tiny_config(50, **ARCHITECTURES[request.param])


@pytest.mark.parametrize(("kind", "shapes"), [(Encoder, encoder_shapes), (Decoder, decoder_shapes)])
def test_they_are_those_of_torch(config: TransformerConfig, kind: type, shapes: object) -> None:
    with torch.device("meta"):
        module = kind(config)
    known = shapes(config)  # type: ignore[operator]
    assert known == {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    assert parameters(config, known) == sum(p.numel() for p in module.parameters())


def test_maps_are_held_in_their_precision_and_tables_not_at_all() -> None:
    shapes = {"layers.0.feed_forward.inner.weight": (8, 4), "norm.weight": (4,), TABLE: (99, 4)}
    assert weight_bytes(shapes, "int8") == 32 + 16
    assert weight_bytes(shapes, "fp32") == 128 + 16
