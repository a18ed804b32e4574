"""A decoder's step as the native library's list of operations: where one architecture becomes it.

Every line of the plan has its counterpart in `Decoder.step`; the native library itself knows no
architecture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from torch import Tensor, nn

from splitformer.model.attention import MultiHeadAttention
from splitformer.model.config import TransformerConfig
from splitformer.model.decoder import Decoder, DecoderLayer
from splitformer.native import (
    Attend,
    Description,
    FloatArray,
    Linear,
    Norm,
    Operation,
    Rows,
    Vocabulary,
    Weights,
)


def describe(decoder: Decoder) -> Description:
    """Return what a native plan of this decoder is made of; arrays are views where possible."""
    config, embedding = decoder.config, decoder.embedding
    layers = cast(list[DecoderLayer], list(decoder.layers))
    attentions = [layer.cross_attention for layer in layers]
    return Description(
        heads=config.heads,
        layers=config.decoder_layers,
        tokens=_array(embedding.tokens.weight),
        positions=_array(embedding.positions),
        max_positions=config.max_positions,
        embedding_scale=embedding.scale,
        projection=tuple(_weights(part) for a in attentions for part in (a.key, a.value)),
        operations=tuple(_operations(decoder, layers)),
    )


def _operations(decoder: Decoder, layers: list[DecoderLayer]) -> Iterator[Operation]:
    """The step in order.

    A sublayer ends where the next one begins: adding its output to the residual stream and
    normalising the sum prepare the next map in one go. A "post" norm is that of the sublayer that
    ends, and stays; a "pre" norm is that of the one that begins, and is seen by its map only.
    """
    pre = decoder.config.norm == "pre"
    residuals = [
        residual
        for layer in layers
        for residual in (
            layer.self_attention_residual,
            layer.cross_attention_residual,
            layer.feed_forward_residual,
        )
    ]
    own = [_norm(residual.norm) for residual in residuals]
    final = _norm(decoder.norm) if pre else None
    stored = [None] * len(own) if pre else own  # behind each sublayer
    prepared = [*own[1:], final] if pre else [None] * len(own)
    yield Rows("embedding", _norm(decoder.embedding.norm), own[0] if pre else None)
    for i, sublayer in enumerate(_sublayers(decoder.config, layers)):
        yield from sublayer
        yield Rows("residual", stored[i], prepared[i], outputs_only=i + 1 == len(own))
    yield Vocabulary(_weights(decoder.output))


def _sublayers(config: TransformerConfig, layers: list[DecoderLayer]) -> Iterator[list[Operation]]:
    scale = config.head_size**-0.5
    for i, layer in enumerate(layers):
        own, cross, network = layer.self_attention, layer.cross_attention, layer.feed_forward
        yield [
            Linear(tuple(map(_weights, (own.query, own.key, own.value))), segments=3),
            Attend(i, cross=False, scale=scale),
            *_merge(own),
        ]
        yield [
            Linear((_weights(cross.query),), segments=1),
            Attend(i, cross=True, scale=scale),
            *_merge(cross),
        ]
        maps = [network.inner] if network.gate is None else [network.gate, network.inner]
        yield [
            Linear(tuple(map(_weights, maps)), config.activation, gated=network.gate is not None),
            Rows("linear"),
            Linear((_weights(network.outer),)),
        ]


def _merge(attention: MultiHeadAttention) -> list[Operation]:
    return [Rows("attention"), Linear((_weights(attention.output),))]


def _weights(linear: nn.Linear) -> Weights:
    bias = linear.bias if "bias" in dict(linear.named_parameters()) else None
    return Weights(_array(linear.weight), None if bias is None else _array(bias))


def _norm(norm: nn.Module | None) -> Norm | None:
    if norm is None:
        return None
    assert isinstance(norm, nn.LayerNorm)
    return Norm("layer", _array(norm.weight), _array(norm.bias), norm.eps)


def _array(tensor: Tensor) -> FloatArray:
    array: FloatArray = tensor.detach().float().cpu().contiguous().numpy()
    return array
