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
Activation = Literal["relu", "gelu", "silu"]
Positions = Literal["sinusoidal", "learned"]

_CHOICES = {"norm": NormPlacement, "activation": Activation, "positions": Positions}


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """Architecture of an encoder-decoder (Vaswani et al. 2017) and its usual variations.

    Attributes:
        source_vocabulary_size: Rows of the encoder's embedding table.
        target_vocabulary_size: Rows of the decoder's embedding table and width of the logits (V).
        d_model: Width of every vector that flows between blocks (D).
        heads: Attention heads (H); must divide `d_model`. Head size K = D / H.
        encoder_layers: Blocks of the encoder.
        decoder_layers: Blocks of the decoder.
        d_feed_forward: Inner width of the feed-forward networks (F).
        max_positions: Longest source and longest decoder input, in tokens.
        norm: "post" normalises after the residual sum, as the paper does; "pre" normalises the
            input of each sublayer and once more at the end of each stack.
        activation: Non-linearity of the feed-forward networks.
        gated: Multiply the activation by a second linear map (Shazeer 2020, "GLU variants").
        positions: "sinusoidal" (fixed) or "learned" position vectors.
        share_embeddings: Source and target use one table; needs equal vocabulary sizes.
        tie_output: The output projection is the target embedding table (Press and Wolf 2017).
        scale_embeddings: Multiply embeddings by sqrt(D), as the paper does.
        normalize_embeddings: LayerNorm on the sum of embedding and position.
        output_bias: Add a bias to the logits.
        norm_epsilon: Added to the variance inside every LayerNorm.
    """

    source_vocabulary_size: int
    target_vocabulary_size: int
    d_model: int
    heads: int
    encoder_layers: int
    decoder_layers: int
    d_feed_forward: int
    max_positions: int
    norm: NormPlacement = "post"
    activation: Activation = "relu"
    gated: bool = False
    positions: Positions = "sinusoidal"
    share_embeddings: bool = True
    tie_output: bool = True
    scale_embeddings: bool = True
    normalize_embeddings: bool = False
    output_bias: bool = False
    norm_epsilon: float = 1e-5

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            self._check_type(field.name, getattr(self, field.name))
        if self.d_model % self.heads:
            raise ConfigurationError(
                f"d_model: must be a multiple of heads ({self.heads}), got {self.d_model}"
            )
        if self.positions == "sinusoidal" and self.d_model % 2:
            raise ConfigurationError(
                f"d_model: must be even for sinusoidal positions, got {self.d_model}"
            )
        if self.share_embeddings and self.source_vocabulary_size != self.target_vocabulary_size:
            raise ConfigurationError(
                "share_embeddings: needs source and target vocabularies of one size, got "
                f"{self.source_vocabulary_size} and {self.target_vocabulary_size}"
            )

    def _check_type(self, name: str, value: object) -> None:
        if name in _CHOICES:
            allowed = get_args(_CHOICES[name])
            if value not in allowed:
                raise ConfigurationError(f"{name}: must be one of {allowed}, got {value!r}")
        elif isinstance(self.__dataclass_fields__[name].default, bool):
            if not isinstance(value, bool):
                raise ConfigurationError(f"{name}: must be true or false, got {value!r}")
        elif name == "norm_epsilon":
            if not (isinstance(value, float) and 0 < value < 1):
                raise ConfigurationError(f"{name}: must lie between 0 and 1, got {value!r}")
        elif isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigurationError(f"{name}: must be a positive integer, got {value!r}")

    @property
    def head_size(self) -> int:
        """K, the width of one head's queries, keys and values."""
        return self.d_model // self.heads

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
