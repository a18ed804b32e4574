"""Both halves as the native library's lists of operations: where one architecture becomes them.

Every line of a plan has its counterpart in `Decoder.step` or `Encoder.forward`; the
native library itself knows no architecture. Weights come as they are stored, by their names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from splitformer.model.config import Stack, TransformerConfig
from splitformer.model.encoding import STRIDE
from splitformer.model.half import Half
from splitformer.model.positions import buckets_by_distance, fixed_positions
from splitformer.model.stored import floats
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


def describe_encoder(half: Half) -> Description:
    """Return what a native plan of this encoder is made of; arrays are views where possible."""
    config = half.config
    parts = _Parts(half, config.encoder)
    bias = parts.bias_by_distance(both_ways=True)
    sublayers = [
        sublayer
        for layer in (f"layers.{i}" for i in range(config.encoder_layers))
        for sublayer in (
            (f"{layer}.self_attention", parts.self_attention(layer, "source", bias)),
            (f"{layer}.feed_forward", parts.feed_forward(layer)),
        )
    ]
    audio = bool(config.mel_bins)
    return Description(
        heads=config.encoder.heads,
        head_size=config.encoder.head_size,
        layers=config.encoder_layers,
        tokens=None if audio else half.array("embedding.tokens.weight"),
        positions=parts.positions(),
        max_positions=config.longest_source,
        embedding_scale=1.0 if audio else config.embedding_scale,
        projection=(),
        operations=tuple(parts.stack(sublayers, "memory")),
        convolutions=tuple(parts.convolutions()) if audio else (),
    )


def describe_decoder(half: Half) -> Description:
    """Return what a native plan of this decoder is made of; arrays are views where possible."""
    config = half.config
    parts = _Parts(half, config.decoder)
    bias = parts.bias_by_distance(both_ways=False)
    layers = [f"layers.{i}" for i in range(config.decoder_layers)]
    sublayers = [
        sublayer
        for layer in layers
        for sublayer in (
            (f"{layer}.self_attention", parts.self_attention(layer, "own", bias)),
            (f"{layer}.cross_attention", parts.cross_attention(layer)),
            (f"{layer}.feed_forward", parts.feed_forward(layer)),
        )
    ]
    stack = parts.stack(sublayers, "outputs", config.output_scale)
    return Description(
        heads=config.decoder.heads,
        head_size=config.decoder.head_size,
        layers=config.decoder_layers,
        tokens=half.array("embedding.tokens.weight"),
        positions=parts.positions(),
        max_positions=config.max_positions,
        embedding_scale=config.embedding_scale,
        projection=tuple(
            parts.weights(f"{layer}.cross_attention.{part}")
            for layer in layers
            for part in ("key", "value")
        ),
        operations=(*stack, Vocabulary(parts.weights("output"))),
    )


@dataclass(frozen=True, slots=True)
class _Parts:
    """Makes parts of a description.

    Attributes:
        half: Where the tensors are.
        stack: Its sizes.
    """

    half: Half
    sizes: Stack

    @property
    def config(self) -> TransformerConfig:
        """The architecture."""
        return self.half.config

    def stack(
        self, sublayers: list[tuple[str, list[Operation]]], target: Target, scale: float = 1.0
    ) -> Iterator[Operation]:
        """A stack of layers in order, up to its last rows.

        A sublayer ends where the next one begins: adding its output to the residual stream and
        normalising the sum prepare the next map in one go. A "post" norm is that of the sublayer
        that ends, and stays; a "pre" norm is that of the one that begins, and is seen by its map
        only. `scale` is a factor on the last rows of a "pre" stack.
        """
        pre = self.config.norm == "pre"
        own = [self.norm(f"{name}_residual.norm") for name, _ in sublayers]
        final = self.norm("norm", scale) if pre else None
        stored = [None] * len(own) if pre else own  # behind each sublayer
        prepared = [*own[1:], final] if pre else [None] * len(own)
        yield Rows("embedding", self.norm("embedding.norm"), own[0] if pre else None)
        for i, (_, operations) in enumerate(sublayers):
            yield from operations
            last = i + 1 == len(own)
            yield Rows("residual", stored[i], prepared[i], target if last else "operand")

    def self_attention(self, layer: str, over: Over, bias: FloatArray | None) -> list[Operation]:
        """Attention over the rows' own sequence."""
        name = f"{layer}.self_attention"
        maps = tuple(self.weights(f"{name}.{part}") for part in ("query", "key", "value"))
        attend = Attend(_number(layer), over, self._scale, bias)
        return [Linear(maps, segments=3), attend, *self._merge(name)]

    def cross_attention(self, layer: str) -> list[Operation]:
        """Attention over the memory."""
        name = f"{layer}.cross_attention"
        query = Linear((self.weights(f"{name}.query"),), segments=1)
        return [query, Attend(_number(layer), "memory", self._scale), *self._merge(name)]

    def feed_forward(self, layer: str) -> list[Operation]:
        """The feed-forward network."""
        name, gated = f"{layer}.feed_forward", self.config.gated
        maps = tuple(self.weights(f"{name}.{p}") for p in (("gate",) if gated else ()) + ("inner",))
        return [
            Linear(maps, self.config.activation, gated=gated),
            Rows("linear"),
            Linear((self.weights(f"{name}.outer"),)),
        ]

    def convolutions(self) -> Iterator[Convolution]:
        """Both convolutions of an encoder of audio, as maps of three frames side by side."""
        for name, stride in (("first", 1), ("second", STRIDE)):
            weight = floats(self.half.array(f"embedding.{name}.weight"))  # (width, channels, 3)
            # (width, 3 * channels), channels innermost as in the frames
            maps = np.ascontiguousarray(weight.transpose(0, 2, 1)).reshape(len(weight), -1)
            yield Convolution(Weights(maps, self.vector(f"embedding.{name}.bias")), stride)

    def positions(self) -> FloatArray | None:
        """Position vectors, learned or fixed; None where they are relative."""
        if self.half.has("embedding.positions"):
            return floats(self.half.array("embedding.positions"))
        return fixed_positions(self.config)

    def bias_by_distance(self, both_ways: bool) -> FloatArray | None:
        """Biases of relative positions, of all layers; None where positions are absolute."""
        if not self.half.has("position_bias.table"):
            return None
        table = floats(self.half.array("position_bias.table"))  # (buckets, H)
        found = buckets_by_distance(len(table), self.config.relative_distance, both_ways)
        by_distance: FloatArray = np.ascontiguousarray(table[found].T)
        return by_distance

    def weights(self, name: str) -> Weights:
        """A linear map."""
        bias = f"{name}.bias"
        weight, scales = self.half.map(f"{name}.weight")
        return Weights(weight, self.vector(bias) if self.half.has(bias) else None, scales)

    def norm(self, name: str, scale: float = 1.0) -> Norm | None:
        """A norm; None if there is none of that name."""
        if not self.half.has(f"{name}.weight"):
            return None
        gain = self.vector(f"{name}.weight", scale)
        shift = self.vector(f"{name}.bias", scale) if self.half.has(f"{name}.bias") else None
        return Norm(self.config.norm_kind, gain, shift, self.config.norm_epsilon)

    def vector(self, name: str, scale: float = 1.0) -> FloatArray:
        """A tensor as float32, times a factor."""
        values: FloatArray = floats(self.half.array(name)) * np.float32(scale)
        return values

    @property
    def _scale(self) -> float:
        return self.sizes.head_size**-0.5 if self.config.scale_attention else 1.0

    def _merge(self, attention: str) -> list[Operation]:
        return [Rows("attention"), Linear((self.weights(f"{attention}.output"),))]


def _number(layer: str) -> int:
    return int(layer.rpartition(".")[2])
