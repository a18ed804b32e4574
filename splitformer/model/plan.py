"""Both halves as the native library's lists of operations: where one architecture becomes them.

Every line of a plan has its counterpart in `Decoder.step` or `Encoder.forward`; the
native library itself knows no architecture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from torch import Tensor, nn

from splitformer.model.attention import MultiHeadAttention
from splitformer.model.config import TransformerConfig
from splitformer.model.decoder import Decoder, DecoderLayer
from splitformer.model.encoder import Encoder, EncoderLayer
from splitformer.model.hearing import Hearing
from splitformer.model.layers import Embedding, FeedForward, Residual
from splitformer.model.relative import RelativeBias
from splitformer.native import (
    Attend,
    Convolution,
    Description,
    FloatArray,
    Linear,
    Norm,
    Operation,
    Over,
    Rows,
    Target,
    Vocabulary,
    Weights,
)


def describe_encoder(encoder: Encoder) -> Description:
    """Return what a native plan of this encoder is made of; arrays are views where possible."""
    config, embedding = encoder.config, encoder.embedding
    layers = cast(list[EncoderLayer], list(encoder.layers))
    residuals = [
        residual
        for layer in layers
        for residual in (layer.self_attention_residual, layer.feed_forward_residual)
    ]
    sublayers = list(_encoder_sublayers(config, layers, _bias(encoder.position_bias)))
    stack = _stack(embedding, residuals, sublayers, encoder.norm, "memory")
    return Description(
        heads=config.encoder.heads,
        head_size=config.encoder.head_size,
        layers=config.encoder_layers,
        tokens=None if encoder.tokens is None else _array(encoder.tokens.weight),
        positions=_optional(embedding.positions),
        max_positions=config.longest_source,
        embedding_scale=embedding.scale,
        projection=(),
        operations=tuple(stack),
        convolutions=_convolutions(embedding) if isinstance(embedding, Hearing) else (),
    )


def describe_decoder(decoder: Decoder) -> Description:
    """Return what a native plan of this decoder is made of; arrays are views where possible."""
    config, embedding = decoder.config, decoder.embedding
    layers = cast(list[DecoderLayer], list(decoder.layers))
    attentions = [layer.cross_attention for layer in layers]
    residuals = [
        residual
        for layer in layers
        for residual in (
            layer.self_attention_residual,
            layer.cross_attention_residual,
            layer.feed_forward_residual,
        )
    ]
    sublayers = list(_decoder_sublayers(config, layers, _bias(decoder.position_bias)))
    stack = _stack(embedding, residuals, sublayers, decoder.norm, "outputs", config.output_scale)
    return Description(
        heads=config.decoder.heads,
        head_size=config.decoder.head_size,
        layers=config.decoder_layers,
        tokens=_array(embedding.tokens.weight),
        positions=_optional(embedding.positions),
        max_positions=config.max_positions,
        embedding_scale=embedding.scale,
        projection=tuple(_weights(part) for a in attentions for part in (a.key, a.value)),
        operations=(*stack, Vocabulary(_weights(decoder.output))),
    )


def _stack(
    embedding: Embedding | Hearing,
    residuals: list[Residual],
    sublayers: list[list[Operation]],
    final_norm: nn.Module,
    target: Target,
    scale: float = 1.0,
) -> Iterator[Operation]:
    """A stack of layers in order, up to its last rows.

    A sublayer ends where the next one begins: adding its output to the residual stream and
    normalising the sum prepare the next map in one go. A "post" norm is that of the sublayer that
    ends, and stays; a "pre" norm is that of the one that begins, and is seen by its map only.
    `scale` is a factor on the last rows of a "pre" stack.
    """
    pre = residuals[0].placement == "pre"
    own = [_norm(residual.norm) for residual in residuals]
    final = _norm(final_norm, scale) if pre else None
    stored = [None] * len(own) if pre else own  # behind each sublayer
    prepared = [*own[1:], final] if pre else [None] * len(own)
    yield Rows("embedding", _norm(embedding.norm), own[0] if pre else None)
    for i, sublayer in enumerate(sublayers):
        yield from sublayer
        yield Rows("residual", stored[i], prepared[i], target if i + 1 == len(own) else "operand")


def _convolutions(hearing: Hearing) -> tuple[Convolution, ...]:
    """Both convolutions as maps of three frames side by side."""
    return tuple(
        Convolution(
            # (width, channels, 3) -> (width, 3 * channels), channels innermost as in the frames
            Weights(_array(layer.weight.transpose(1, 2).flatten(1)), _optional(layer.bias)),
            layer.stride[0],
        )
        for layer in (hearing.first, hearing.second)
    )


def _encoder_sublayers(
    config: TransformerConfig, layers: list[EncoderLayer], bias: FloatArray | None
) -> Iterator[list[Operation]]:
    for i, layer in enumerate(layers):
        yield _self_attention(layer.self_attention, i, "source", bias)
        yield _feed_forward(config, layer.feed_forward)


def _decoder_sublayers(
    config: TransformerConfig, layers: list[DecoderLayer], bias: FloatArray | None
) -> Iterator[list[Operation]]:
    for i, layer in enumerate(layers):
        cross = layer.cross_attention
        yield _self_attention(layer.self_attention, i, "own", bias)
        yield [
            Linear((_weights(cross.query),), segments=1),
            Attend(i, "memory", cross.scale),
            *_merge(cross),
        ]
        yield _feed_forward(config, layer.feed_forward)


def _self_attention(
    own: MultiHeadAttention, layer: int, over: Over, bias: FloatArray | None
) -> list[Operation]:
    return [
        Linear(tuple(map(_weights, (own.query, own.key, own.value))), segments=3),
        Attend(layer, over, own.scale, bias),
        *_merge(own),
    ]


def _feed_forward(config: TransformerConfig, network: FeedForward) -> list[Operation]:
    maps = [network.inner] if network.gate is None else [network.gate, network.inner]
    return [
        Linear(tuple(map(_weights, maps)), config.activation, gated=network.gate is not None),
        Rows("linear"),
        Linear((_weights(network.outer),)),
    ]


def _merge(attention: MultiHeadAttention) -> list[Operation]:
    return [Rows("attention"), Linear((_weights(attention.output),))]


def _weights(linear: nn.Linear) -> Weights:
    bias = linear.bias if "bias" in dict(linear.named_parameters()) else None
    return Weights(_array(linear.weight), None if bias is None else _array(bias))


def _norm(norm: nn.Module | None, scale: float = 1.0) -> Norm | None:
    if norm is None:
        return None
    if isinstance(norm, nn.RMSNorm):
        assert norm.eps is not None
        return Norm("rms", _array(norm.weight * scale), None, norm.eps)
    assert isinstance(norm, nn.LayerNorm)
    return Norm("layer", _array(norm.weight * scale), _array(norm.bias * scale), norm.eps)


def _bias(bias: RelativeBias | None) -> FloatArray | None:
    return None if bias is None else _array(bias.by_distance())


def _optional(tensor: Tensor | None) -> FloatArray | None:
    return None if tensor is None else _array(tensor)


def _array(tensor: Tensor) -> FloatArray:
    array: FloatArray = tensor.detach().float().cpu().contiguous().numpy()
    return array
