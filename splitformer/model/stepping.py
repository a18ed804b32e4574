"""The seam between the loop and the arithmetic: what a decoder must be able to do for the loop.

`TorchDecoder` does it with the readable torch model: the reference, and the fallback wherever the
native library cannot be used. `splitformer.model.native_decoder.NativeDecoder` does it in C++.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from splitformer.model.config import TransformerConfig
from splitformer.model.decoder import Decoder, DecoderState

RULED_OUT = float("-inf")
PRECISION_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


@dataclass(slots=True)
class Asked:
    """What one step is asked about its outputs, beyond the likeliest id of each.

    Outputs are numbered in the order of sequences and of their positions. Most ask for nothing, so
    that each kind of question names the outputs that it is about.

    Attributes:
        denied: One more id ruled out at an output.
        candidates: How many of the likeliest ids are wanted, at least one.
        logits: Outputs of which all logits are wanted, for a choice of their own.
        given: An id whose logit is wanted.
        attention: Outputs of which the attention over the memory is wanted.
    """

    denied: dict[int, int] = field(default_factory=dict)
    candidates: dict[int, int] = field(default_factory=dict)
    logits: set[int] = field(default_factory=set)
    given: dict[int, int] = field(default_factory=dict)
    attention: set[int] = field(default_factory=set)

    def __bool__(self) -> bool:
        """True if anything is asked."""
        return bool(self.denied or self.candidates or self.logits or self.given or self.attention)


NOTHING = Asked()
"""Only the likeliest ids are wanted."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The likeliest ids of one output that were not ruled out, likeliest first.

    Attributes:
        ids: (n), integers; of equally likely ones the smallest come first.
        logits: (n), floats.
    """

    ids: NDArray[Any]
    logits: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Advanced:
    """What one step brought, per output: one per sequence unless a sequence wants several.

    Attributes:
        ids: The likeliest ids that were not ruled out.
        log_probabilities: Natural logarithms of their probabilities among all ids; empty unless
            asked for.
        logits: Logits (V,) of the outputs that asked for them, before anything is ruled out.
        log_sums: Logarithms of the sums of exp(logit): what to subtract from a logit to get the
            log-probability of any other id; empty unless asked for.
        candidates: The likeliest ids and their logits of the outputs that asked for them.
        given: Logits of the ids that were given.
        attention: The last layer's weights over the memory, the mean of its heads, (S,), of the
            outputs that asked for them.
    """

    ids: list[int]
    log_probabilities: list[float] = field(default_factory=list)
    logits: dict[int, Tensor] = field(default_factory=dict)
    log_sums: list[float] = field(default_factory=list)
    candidates: dict[int, Candidates] = field(default_factory=dict)
    given: dict[int, float] = field(default_factory=dict)
    attention: dict[int, Tensor] = field(default_factory=dict)

    def log_probability(self, output: int, logit: float) -> float:
        """Of any id with this logit; of the likeliest one the same bits as its own.

        The difference of two float32 is rounded to float32 rightly whatever it was computed in.
        """
        return float(np.float32(logit - self.log_sums[output]))


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

    def begin(self, memory: Tensor) -> DecoderState:
        """Project a memory (S, D) into every layer's cross keys and values, once."""

    def advance(
        self,
        tokens: Sequence[Sequence[int]],
        states: Sequence[DecoderState],
        never: tuple[int, ...] = (),
        asked: Asked = NOTHING,
        outputs: Sequence[int] | None = None,
        log_probabilities: bool = True,
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
        """

    def close(self) -> None:
        """Let go of threads and memory."""


class TorchDecoder:
    """A torch decoder as a `StepDecoder`; see there.

    Args:
        decoder: In evaluation mode.
    """

    kernel = "torch"
    precision = "fp32"
    batch_invariant = False
    begins_beside = False
    element_bytes = 4
    source_page = 1

    def __init__(self, decoder: Decoder) -> None:
        self.config = decoder.config
        self._decoder = decoder

    @torch.inference_mode()
    def begin(self, memory: Tensor) -> DecoderState:
        """Project a memory (S, D) into every layer's cross keys and values, once."""
        return self._decoder.begin(memory)

    @torch.inference_mode()
    def advance(
        self,
        tokens: Sequence[Sequence[int]],
        states: Sequence[DecoderState],
        never: tuple[int, ...] = (),
        asked: Asked = NOTHING,
        outputs: Sequence[int] | None = None,
        log_probabilities: bool = True,
    ) -> Advanced:
        """Compute the rows of new tokens and choose the next token of each sequence."""
        shown: list[Tensor] | None = [] if asked.attention else None
        logits = self._decoder.step(tokens, states, outputs, shown)  # (outputs, V)
        return answers(logits, never, asked, log_probabilities, shown)

    def close(self) -> None:
        """There is nothing to let go of."""


def answers(
    logits: Tensor,
    never: tuple[int, ...],
    asked: Asked,
    log_probabilities: bool,
    attention: Sequence[Tensor] | None,
) -> Advanced:
    """Answer what is asked about the logits (outputs, V) of a step, and rows of attention (S,)."""
    possible = _allowed(logits, never, asked.denied)
    ids = possible.argmax(-1)  # (outputs,)
    sums = logits.logsumexp(-1) if log_probabilities else logits.new_empty(0)
    chosen = logits.gather(-1, ids[:, None])[:, 0] if log_probabilities else sums
    return Advanced(
        ids.tolist(),
        (chosen - sums).tolist(),
        {i: logits[i].cpu() for i in asked.logits},
        sums.tolist(),
        {i: likeliest(possible[i], k) for i, k in asked.candidates.items()},
        {i: float(logits[i, token]) for i, token in asked.given.items()},
        {i: attention[i].float().cpu() for i in asked.attention} if attention else {},
    )


def likeliest(logits: Tensor, count: int) -> Candidates:
    """Return the `count` likeliest ids of (V,) and their logits."""
    ordered, ids = logits.sort(descending=True, stable=True)
    kept = min(count, int((ordered > RULED_OUT).sum()))
    return Candidates(ids[:kept].cpu().numpy(), ordered[:kept].cpu().numpy())


def _allowed(logits: Tensor, never: tuple[int, ...], denied: Mapping[int, int]) -> Tensor:
    """Rule out what must not be chosen: (outputs, V) -> (outputs, V)."""
    if never:
        logits = logits.index_fill(-1, torch.tensor(never, device=logits.device), RULED_OUT)
    if denied:
        logits = logits.clone()
        logits[list(denied), list(denied.values())] = RULED_OUT
    return logits
