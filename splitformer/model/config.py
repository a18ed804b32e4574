"""The shape of a Transformer, as one frozen value.

A configuration says what the arithmetic is, never how it is run: precision, devices and batching
belong to whoever runs the model. Families of published checkpoints map their own config.json to
this value in files of their own.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from splitformer.errors import ConfigurationError

NormPlacement = Literal["pre", "post"]
NormKind = Literal["layer", "rms"]
Activation = Literal["relu", "gelu", "gelu_tanh", "silu"]
Positions = Literal["sinusoidal", "sinusoidal_closed", "learned", "relative"]

_CHOICES = {
    "norm": NormPlacement,
    "norm_kind": NormKind,
    "activation": Activation,
    "positions": Positions,
}


@dataclass(frozen=True, slots=True)
class Stack:
    """One half's layers.

    Attributes:
        layers: L.
        heads: H.
        head_size: K.
        d_feed_forward: F.
    """

    layers: int
    heads: int
    head_size: int
    d_feed_forward: int

    @property
    def width(self) -> int:
        """H * K, what queries, keys and values of all heads take up together."""
        return self.heads * self.head_size


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """Architecture of an encoder-decoder (Vaswani et al. 2017) and its usual variations.

    Attributes:
        source_vocabulary_size: Rows of the encoder's embedding table; 0 where sources are audio.
        target_vocabulary_size: Rows of the decoder's embedding table and width of the logits (V).
        d_model: Width of every vector that flows between blocks (D).
        heads: Attention heads (H); must divide `d_model` unless `d_head` is given.
        encoder_layers: Blocks of the encoder.
        decoder_layers: Blocks of the decoder.
        d_feed_forward: Inner width of the feed-forward networks (F).
        max_positions: Longest source and longest decoder input, in tokens.
        source_positions: Longest source where it differs, in rows of the memory.
        mel_bins: Sources are audio, as so many log-mel features per frame; 0: they are tokens.
        decoder_heads: Heads of the decoder where they differ from `heads`.
        decoder_feed_forward: F of the decoder where it differs from `d_feed_forward`.
        d_head: Head size (K); None: D / H.
        norm: "post" normalises after the residual sum, as the paper does; "pre" normalises the
            input of each sublayer and once more at the end of each stack.
        norm_kind: LayerNorm (Ba et al. 2016), or RMSNorm (Zhang and Sennrich 2019) with "rms".
        activation: Non-linearity of the feed-forward networks; "gelu_tanh" is GELU's approximation.
        gated: Multiply the activation by a second linear map (Shazeer 2020, "GLU variants").
        positions: "sinusoidal" (fixed) or "learned" position vectors; "sinusoidal_closed" spreads
            its rates so that the slowest is exactly 1/10000, as fairseq does; "relative" adds a
            learned bias per bucket of distances to the scores of self-attention instead (Raffel
            et al. 2020, section 2.1).
        position_offset: Row of the fixed table that the first position takes.
        relative_buckets: Buckets of "relative".
        relative_distance: Distance from which on all share the last bucket.
        share_embeddings: Source and target use one table; needs equal vocabulary sizes.
        tie_output: The output projection is the target embedding table (Press and Wolf 2017).
        scale_embeddings: Multiply embeddings by sqrt(D), as the paper does.
        scale_attention: Divide scores by sqrt(K), as the paper does.
        scale_output: Divide by sqrt(D) what goes into the output projection.
        normalize_embeddings: Normalise the sum of embedding and position.
        biases: The linear maps of attention and feed-forward networks have biases.
        output_bias: Add a bias to the logits.
        norm_epsilon: Added to the variance inside every norm.
    """

    source_vocabulary_size: int
    target_vocabulary_size: int
    d_model: int
    heads: int
    encoder_layers: int
    decoder_layers: int
    d_feed_forward: int
    max_positions: int
    source_positions: int | None = None
    mel_bins: int = 0
    decoder_heads: int | None = None
    decoder_feed_forward: int | None = None
    d_head: int | None = None
    norm: NormPlacement = "post"
    norm_kind: NormKind = "layer"
    activation: Activation = "relu"
    gated: bool = False
    positions: Positions = "sinusoidal"
    position_offset: int = 0
    relative_buckets: int = 32
    relative_distance: int = 128
    share_embeddings: bool = True
    tie_output: bool = True
    scale_embeddings: bool = True
    scale_attention: bool = True
    scale_output: bool = False
    normalize_embeddings: bool = False
    biases: bool = True
    output_bias: bool = False
    norm_epsilon: float = 1e-5

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            self._check_type(field.name, getattr(self, field.name))
        for name in ("heads", "decoder_heads"):
            heads = getattr(self, name)
            if self.d_head is None and heads is not None and self.d_model % heads:
                raise ConfigurationError(
                    f"d_model: must be a multiple of {name} ({heads}), got {self.d_model}"
                )
        if self.positions.startswith("sinusoidal") and self.d_model % 2:
            raise ConfigurationError(
                f"d_model: must be even for sinusoidal positions, got {self.d_model}"
            )
        if not 2 < self.relative_buckets <= self.relative_distance or self.relative_buckets % 4:
            raise ConfigurationError(
                "relative_buckets: must be a multiple of 4 and at most relative_distance"
                f" ({self.relative_distance}), got {self.relative_buckets}"
            )
        if (self.source_vocabulary_size == 0) != (self.mel_bins > 0):
            raise ConfigurationError(
                "source_vocabulary_size: must be 0 if sources are audio, and positive if not, got"
                f" {self.source_vocabulary_size}"
            )
        if self.scale_output and self.norm != "pre":
            raise ConfigurationError('scale_output: needs norm "pre", got "post"')
        if self.share_embeddings and self.source_vocabulary_size != self.target_vocabulary_size:
            raise ConfigurationError(
                "share_embeddings: needs source and target vocabularies of one size, got "
                f"{self.source_vocabulary_size} and {self.target_vocabulary_size}"
            )

    def _check_type(self, name: str, value: object) -> None:
        default = self.__dataclass_fields__[name].default
        if default is None and value is None:
            return
        if name in _CHOICES:
            allowed = get_args(_CHOICES[name])
            if value not in allowed:
                raise ConfigurationError(f"{name}: must be one of {allowed}, got {value!r}")
        elif isinstance(default, bool):
            if not isinstance(value, bool):
                raise ConfigurationError(f"{name}: must be true or false, got {value!r}")
        elif name == "norm_epsilon":
            if not (isinstance(value, float) and 0 < value < 1):
                raise ConfigurationError(f"{name}: must lie between 0 and 1, got {value!r}")
        elif isinstance(value, bool) or not isinstance(value, int) or value < _least(name, default):
            rule = "must be a positive integer" + ("" if _least(name, default) else " or 0")
            raise ConfigurationError(f"{name}: {rule}, got {value!r}")

    @property
    def longest_source(self) -> int:
        """Most rows that a memory has."""
        return self.source_positions or self.max_positions

    @property
    def encoder(self) -> Stack:
        """The encoder's layers."""
        return self._stack(self.encoder_layers, self.heads, self.d_feed_forward)

    @property
    def decoder(self) -> Stack:
        """The decoder's layers."""
        return self._stack(
            self.decoder_layers,
            self.decoder_heads or self.heads,
            self.decoder_feed_forward or self.d_feed_forward,
        )

    def _stack(self, layers: int, heads: int, d_feed_forward: int) -> Stack:
        return Stack(layers, heads, self.d_head or self.d_model // heads, d_feed_forward)

    @property
    def output_scale(self) -> float:
        """Factor on what goes into the output projection."""
        return self.d_model**-0.5 if self.scale_output else 1.0

    @property
    def embedding_scale(self) -> float:
        """Factor on the embeddings before positions are added."""
        return math.sqrt(self.d_model) if self.scale_embeddings else 1.0

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TransformerConfig:
        """Build from parsed JSON; unknown and missing names are refused."""
        names = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(values.keys() - names):
            raise ConfigurationError(f"architecture: unknown field {unknown[0]!r}")
        required = {f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING}
        if missing := sorted(required - values.keys()):
            raise ConfigurationError(f"architecture: missing field {missing[0]!r}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values; `from_dict` is the inverse."""
        return dataclasses.asdict(self)


def _least(name: str, default: object) -> int:
    """Smallest value of a whole number."""
    return 0 if default == 0 or name == "source_vocabulary_size" else 1
