"""Names and shapes of a model's tensors, from its architecture alone.

They are those of `Encoder.state_dict` and `Decoder.state_dict`, known without building either: that
takes torch's whole machinery for tensors without memory, which is larger than many models.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from splitformer.model.config import Stack, TransformerConfig

Shapes = Mapping[str, tuple[int, ...]]
"""Name of a tensor to its shape."""

TABLE = "embedding.tokens.weight"
Named = Iterator[tuple[str, tuple[int, ...]]]


def encoder_shapes(config: TransformerConfig) -> Shapes:
    """Return the encoder's tensors."""
    return dict(_encoder(config))


def decoder_shapes(config: TransformerConfig) -> Shapes:
    """Return the decoder's tensors; one that is tied to another is named as well."""
    return dict(_decoder(config))


def parameters(config: TransformerConfig, shapes: Shapes) -> int:
    """Count a half's parameters, tied ones once."""
    tied = {"output.weight"} if config.tie_output else set()
    return sum(math.prod(shape) for name, shape in shapes.items() if name not in tied)


def weight_bytes(shapes: Shapes, precision: str) -> int:
    """Return how many bytes a half's weights take: maps in its precision, the rest in 32 bits.

    The table of embeddings is looked up in the model's file and does not count; an output
    projection that is that table is held besides.
    """
    each = {"int8": 1, "fp16": 2, "bf16": 2}.get(precision, 4)
    return sum(
        math.prod(shape) * (each if is_map(name) else 4)
        for name, shape in shapes.items()
        if name != TABLE
    )


def is_map(name: str) -> bool:
    """True for weights of linear maps, which are what is held in 8 bits."""
    kind = ("query", "key", "value", "output", "inner", "gate", "outer")
    return name.endswith(tuple(f"{each}.weight" for each in kind))


def _encoder(config: TransformerConfig) -> Named:
    width = config.d_model
    if config.mel_bins:
        yield "embedding.positions", (config.longest_source, width)
        for name, channels in (("first", config.mel_bins), ("second", width)):
            yield f"embedding.{name}.weight", (width, channels, 3)
            yield f"embedding.{name}.bias", (width,)
    else:
        yield from _embedding(config, config.source_vocabulary_size)
    for i in range(config.encoder_layers):
        yield from _sublayers(f"layers.{i}", config, config.encoder, ("self_attention",))
    yield from _end(config, config.heads)


def _decoder(config: TransformerConfig) -> Named:
    yield from _embedding(config, config.target_vocabulary_size)
    attentions = ("self_attention", "cross_attention")
    for i in range(config.decoder_layers):
        yield from _sublayers(f"layers.{i}", config, config.decoder, attentions)
    size = config.target_vocabulary_size
    yield from _linear("output", config.d_model, size, config.output_bias)
    yield from _end(config, config.decoder.heads)


def _embedding(config: TransformerConfig, size: int) -> Named:
    if config.positions == "learned":
        yield "embedding.positions", (config.max_positions, config.d_model)
    yield TABLE, (size, config.d_model)
    if config.normalize_embeddings:
        yield from _norm("embedding.norm", config)


def _sublayers(
    layer: str, config: TransformerConfig, stack: Stack, attentions: tuple[str, ...]
) -> Named:
    width, biases = config.d_model, config.biases
    for name in attentions:
        for part in ("query", "key", "value"):
            yield from _linear(f"{layer}.{name}.{part}", width, stack.width, biases)
        yield from _linear(f"{layer}.{name}.output", stack.width, width, biases)
        yield from _norm(f"{layer}.{name}_residual.norm", config)
    for part in ("inner", "gate") if config.gated else ("inner",):
        yield from _linear(f"{layer}.feed_forward.{part}", width, stack.d_feed_forward, biases)
    yield from _linear(f"{layer}.feed_forward.outer", stack.d_feed_forward, width, biases)
    yield from _norm(f"{layer}.feed_forward_residual.norm", config)


def _end(config: TransformerConfig, heads: int) -> Named:
    if config.norm == "pre":
        yield from _norm("norm", config)
    if config.positions == "relative":
        yield "position_bias.table", (config.relative_buckets, heads)


def _linear(name: str, inputs: int, outputs: int, bias: bool) -> Named:
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)


def _norm(name: str, config: TransformerConfig) -> Named:
    yield f"{name}.weight", (config.d_model,)
    if config.norm_kind == "layer":
        yield f"{name}.bias", (config.d_model,)
