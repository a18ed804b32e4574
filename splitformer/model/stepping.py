"""The seam between the loop and the arithmetic: what a decoder must be able to do for the loop.

`splitformer.model.native_decoder.NativeDecoder` does it in C++, without torch. `TorchDecoder`
(`splitformer.model.torch_decoder`) does it with the readable torch model: the reference, and the
fallback wherever the native library cannot be used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from struct import Struct
from typing import NamedTuple, Protocol

from numpy.typing import ArrayLike

from splitformer.model.cache import DecoderState
from splitformer.model.config import TransformerConfig
from splitformer.native import Continuations, FloatArray, Question

RULED_OUT = float("-inf")

_FLOAT = Struct("f")


def rounded(value: float) -> float:
    """Round to the precision that all log-probabilities have, float32."""
    return float(_FLOAT.unpack(_FLOAT.pack(value))[0])


Asked = Mapping[int, Question]
"""What one step is asked about its outputs beyond the likeliest id of each.

Outputs are numbered in the order of sequences and of their positions. Most ask for nothing.
"""

NOTHING: Asked = {}
"""Only the likeliest ids are wanted."""


class Candidates(NamedTuple):
    """The likeliest ids of one output that were not ruled out, likeliest first.

    Attributes:
        ids: Of equally likely ones the smallest come first.
        logits: As many.
    """

    ids: list[int]
    logits: list[float]


@dataclass(slots=True)
class Advanced:
    """What one step brought, per output: one per sequence unless a sequence wants several.

    Attributes:
        ids: The likeliest ids that were not ruled out, or those that were drawn; -1 where others
            than the likeliest may matter for a draw.
        log_probabilities: Natural logarithms of their probabilities among all ids; empty unless
            asked for.
        logits: Logits (V,) of the outputs that asked for them, before anything is ruled out.
        log_sums: Logarithms of the sums of exp(logit): what to subtract from a logit to get the
            log-probability of any other id; empty unless asked for.
        candidates: The likeliest ids and their logits of the outputs that asked for them.
        given: Logits of the ids that were given.
        attention: The last layer's weights over the memory, the mean of its heads, (S,), of the
            outputs that asked for them.
        focus: The position of the memory that has the most of that mean; empty unless asked for,
            and where the decoder does not tell.
        focus_weights: How much; as above.
    """

    ids: list[int]
    log_probabilities: list[float] = field(default_factory=list)
    logits: dict[int, FloatArray] = field(default_factory=dict)
    log_sums: list[float] = field(default_factory=list)
    candidates: Mapping[int, Candidates] = field(default_factory=dict)
    given: dict[int, float] = field(default_factory=dict)
    attention: dict[int, FloatArray] = field(default_factory=dict)
    focus: list[int] = field(default_factory=list)
    focus_weights: list[float] = field(default_factory=list)

    def log_probability(self, output: int, logit: float) -> float:
        """Of any id with this logit; of the likeliest one the same bits as its own.

        The difference of two float32 is rounded to float32 rightly whatever it was computed in.
        """
        return rounded(logit - self.log_sums[output])

    def together(self, first: int, totals: Sequence[float], most: int) -> Continuations | None:
        """Return the best continuations of hypotheses together; None: that is left to the caller.

        Args:
            first: Output of the first hypothesis; the others follow, and all asked the same.
            totals: Sums of the hypotheses' log-probabilities.
            most: How many to return at most.
        """
        return None


class StepDecoder(Protocol):
    """A loaded decoder that takes steps.

    Attributes:
        config: The architecture.
        kernel: Name of its arithmetic, changed whenever any result's bits do.
        precision: "fp32", "int8", and on GPUs "bf16" or "fp16".
        batch_invariant: True if results are the same bits whatever else is in a step.
        begins_beside: True if `begin` may run on another thread while a step does.
        element_bytes: Of an element of keys and values.
        source_page: Rows of a memory take room in multiples of this.
    """

    @property
    def config(self) -> TransformerConfig: ...  # noqa: D102

    @property
    def kernel(self) -> str: ...  # noqa: D102

    @property
    def precision(self) -> str: ...  # noqa: D102

    @property
    def batch_invariant(self) -> bool: ...  # noqa: D102

    @property
    def begins_beside(self) -> bool: ...  # noqa: D102

    @property
    def element_bytes(self) -> int: ...  # noqa: D102

    @property
    def source_page(self) -> int: ...  # noqa: D102

    def begin(self, memory: ArrayLike) -> DecoderState:
        """Project a memory (S, D) into every layer's cross keys and values, once."""

    def advance(
        self,
        tokens: Sequence[Sequence[int]],
        states: Sequence[DecoderState],
        never: tuple[int, ...] = (),
        asked: Asked = NOTHING,
        outputs: Sequence[int] | None = None,
        log_probabilities: bool = True,
        focus: bool = False,
    ) -> Advanced:
        """Compute the rows of new tokens and choose the next token of each sequence.

        Args:
            tokens: For each sequence its new input tokens, at least one.
            states: The sequences' states; each grows by as many positions.
            never: Ids that no sequence may get.
            asked: What else is wanted.
            outputs: From how many of its last new positions each sequence wants an output, in the
                order of the positions; None: from the last one.
            log_probabilities: Compute them.
            focus: Say of all outputs where in the memory they look.
        """

    def close(self) -> None:
        """Let go of threads and memory."""
