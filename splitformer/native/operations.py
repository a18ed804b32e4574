"""A decode step or an encoder as a list of fused operations: words to describe models in.

The operations are those of src/plan.h; arrays are float32, unless they are said to be stored ones.
Which list belongs to which model is none of this package's business.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
StoredArray = NDArray[Any]
"""Numbers as they are stored: float32, float16, or bfloat16, which numpy lacks, as uint16."""
Precision = Literal["int8", "fp32"]
Cache = Literal["f32", "f16"]
Activation = Literal["none", "relu", "gelu", "gelu_tanh", "silu"]
Source = Literal["embedding", "residual", "attention", "linear"]
Target = Literal["operand", "outputs", "memory"]
Over = Literal["own", "memory", "source"]
NormKind = Literal["layer", "rms"]

PRECISIONS: Mapping[Precision, int] = {"fp32": 0, "int8": 1}
ELEMENTS: Mapping[Any, int] = {np.float32: 0, np.float16: 1, np.uint16: 2, np.int8: 3}
CACHES: Mapping[Cache, int] = {"f32": 0, "f16": 1}
PAGE_POSITIONS = 32
"""Positions of a page of a sequence's own keys and values: kPagePositions of src/types.h."""

ACTIVATIONS: Mapping[Activation, int] = {
    "none": 0,
    "relu": 1,
    "gelu": 2,
    "gelu_tanh": 3,
    "silu": 4,
}
NORMS: Mapping[NormKind, int] = {"layer": 1, "rms": 2}
SOURCES: Mapping[Source, int] = {"embedding": 0, "residual": 1, "attention": 2, "linear": 3}
TARGETS: Mapping[Target, int] = {"operand": 0, "outputs": 1, "memory": 2}
OVERS: Mapping[Over, int] = {"own": 0, "memory": 1, "source": 2}


@dataclass(frozen=True, eq=False)
class Weights:
    """A linear map.

    Attributes:
        weight: (width, inputs), as stored or quantised to int8.
        bias: (width,) or none.
        scales: Of quantised weights, (width,).
    """

    weight: StoredArray
    bias: FloatArray | None = None
    scales: FloatArray | None = None


@dataclass(frozen=True, eq=False)
class Norm:
    """LayerNorm or RMSNorm: gain and shift (D,); RMSNorm usually has no shift."""

    kind: NormKind
    gain: FloatArray
    shift: FloatArray | None
    epsilon: float


@dataclass(frozen=True, eq=False)
class Rows:
    """Row by row: take the source, normalise it for good, and once more for what comes next only.

    `target` is the next map's operand; the same for those rows only from which outputs are asked;
    or the memory, at the end of an encoder.
    """

    source: Source
    stored: Norm | None = None
    prepared: Norm | None = None
    target: Target = "operand"


@dataclass(frozen=True, eq=False)
class Linear:
    """Maps side by side, then an activation; `gated`: activation(first) * second.

    `segments` is 3 if self-attention follows (query, key, value), 1 if cross-attention does.
    """

    parts: tuple[Weights, ...]
    activation: Activation = "none"
    gated: bool = False
    segments: int = 0


@dataclass(frozen=True, eq=False)
class Attend:
    """Attention over the sequence's own positions, its memory, or in encoders the whole source.

    `bias` is added by distance: (H, distances), over a source (H, 2 * distances - 1).
    """

    layer: int
    over: Over
    scale: float
    bias: FloatArray | None = None


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The output map and what is asked of its logits."""

    weights: Weights


Operation = Rows | Linear | Attend | Vocabulary


@dataclass(frozen=True, eq=False)
class Convolution:
    """A map of three neighbouring frames, side by side, and GELU.

    Attributes:
        weights: (width, 3 * channels).
        stride: Frames from one row to the next.
    """

    weights: Weights
    stride: int


@dataclass(frozen=True, eq=False)
class Description:
    """Everything a plan is made of.

    Attributes:
        heads: H.
        head_size: K.
        layers: L.
        tokens: Embedding table, (V, D), as stored; none where convolutions take its place.
        positions: Position vectors, (positions, D), or none.
        max_positions: Most positions a sequence may have.
        embedding_scale: Factor on the rows of `tokens`.
        projection: Maps of the memory for all layers, key and value in turn, 2 L of them; none
            where nothing is projected.
        operations: Begin with an embedding and end with the vocabulary, or with the memory; none
            where memories are only projected.
        convolutions: From frames of features to the rows that an encoder begins with.
    """

    heads: int
    head_size: int
    layers: int
    tokens: StoredArray | None
    positions: FloatArray | None
    max_positions: int
    embedding_scale: float
    projection: tuple[Weights, ...]
    operations: tuple[Operation, ...]
    convolutions: tuple[Convolution, ...] = ()

    @property
    def d_model(self) -> int:
        """Width of the rows between operations (D)."""
        table = self.convolutions[-1].weights.weight.T if self.tokens is None else self.tokens
        return int(table.shape[1])


class Outputs(NamedTuple):
    """What a step answers, one element per output, in the order of sequences and positions.

    Attributes:
        ids: The likeliest id that is not ruled out, int32; or the one that was drawn, -1 where
            tokens that are not among the candidates may matter.
        log_probabilities: Of that id among all ids; empty unless asked for.
        log_sums: Logarithm of the sum of exp(logit) over all ids; empty unless asked for.
        logits: One row of V for each output that asked for it, before anything is ruled out.
        candidates: The likeliest ids of all outputs that asked for them, and their logits: pairs
            (logit, id) of 32 bits each, likeliest first, id -1 where there are no more.
        given: Logits of the ids that were given.
        attention: Rows of all outputs that asked for them, one behind the other.
        focus: Position of the memory that the last layer looks at most, by the mean of its heads,
            int32; None unless asked for.
        focus_weights: That mean; None unless asked for.
    """

    ids: array[int]
    log_probabilities: array[float]
    log_sums: array[float]
    logits: FloatArray
    candidates: array[int]
    given: array[float]
    attention: FloatArray
    focus: array[int] | None = None
    focus_weights: array[float] | None = None


class Questions(NamedTuple):
    """What is asked about a step's outputs, and how much comes back besides the likeliest ids.

    Attributes:
        mask: What `Plan.mask` returns: ids that no output may get.
        records: Those of one `Question` for each output, one behind the other; None: there are no
            questions.
        lengths: How much attention comes back: rows of the memory for each output that asked.
        candidates: How many candidates come back.
        rows: How many rows of logits come back.
        given: True if logits of given ids come back.
        log_probabilities: Compute them, and the sums.
        focus: Say of every output where it looks.
    """

    mask: array[float] | None = None
    records: array[int] | None = None
    lengths: Sequence[int] = ()
    candidates: int = 0
    rows: int = 0
    given: bool = False
    log_probabilities: bool = True
    focus: bool = False
