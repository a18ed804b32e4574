"""The seam between the loop and the arithmetic: what a decoder must be able to do for the loop.

`TorchDecoder` does it with the readable torch model: the reference, and the fallback wherever the
native library cannot be used. `splitformer.model.native_decoder.NativeDecoder` does it in C++.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from splitformer.model.config import TransformerConfig
from splitformer.model.decoder import Decoder, DecoderState

RULED_OUT = float("-inf")


@dataclass(frozen=True, slots=True)
class Candidates:
    """The likeliest ids of one output that were not ruled out, likeliest first.

    Attributes:
        ids: Of equally likely ones the smallest come first.
        logits: Their logits.
    """

    ids: list[int]
    logits: list[float]


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
    """

    ids: list[int]
    log_probabilities: list[float] = field(default_factory=list)
    logits: dict[int, Tensor] = field(default_factory=dict)
    log_sums: list[float] = field(default_factory=list)
    candidates: dict[int, Candidates] = field(default_factory=dict)


class StepDecoder(Protocol):
    """A loaded decoder that takes steps.

    Attributes:
        config: The architecture.
        kernel: Name of its arithmetic, changed whenever any result's bits do.
        precision: "fp32" or "int8".
        batch_invariant: True if results are the same bits whatever else is in a step.
        element_bytes: Of an element of keys and values.
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
    def element_bytes(self) -> int: ...  # noqa: D102

    def begin(self, memory: Tensor) -> DecoderState:
        """Project a memory (S, D) into every layer's cross keys and values, once."""

    def advance(
        self,
        tokens: Sequence[Sequence[int]],
        states: Sequence[DecoderState],
        never: tuple[int, ...] = (),
        denied: Sequence[int] | None = None,
        want_logits: Sequence[bool] | None = None,
        log_probabilities: bool = True,
        *,
        outputs: Sequence[int] | None = None,
        candidates: Sequence[int] | None = None,
    ) -> Advanced:
        """Compute the rows of new tokens and choose the next token of each sequence.

        Args:
            tokens: For each sequence its new input tokens, at least one.
            states: The sequences' states; each grows by as many positions.
            never: Ids that no sequence may get.
            denied: One more such id per output, or -1.
            want_logits: Which outputs need their logits, for a choice of their own.
            log_probabilities: Compute them.
            outputs: From how many of its last new positions each sequence wants an output, in the
                order of the positions; None: from the last one.
            candidates: How many of the likeliest ids each output wants, or 0.
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
    element_bytes = 4

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
        denied: Sequence[int] | None = None,
        want_logits: Sequence[bool] | None = None,
        log_probabilities: bool = True,
        *,
        outputs: Sequence[int] | None = None,
        candidates: Sequence[int] | None = None,
    ) -> Advanced:
        """Compute the rows of new tokens and choose the next token of each sequence."""
        logits = self._decoder.step(tokens, states, outputs)  # (outputs, V)
        possible = _allowed(logits, never, denied)
        ids = possible.argmax(-1)  # (outputs,)
        wanted = [i for i, wants in enumerate(want_logits or ()) if wants]
        sums = logits.logsumexp(-1) if log_probabilities else logits.new_empty(0)
        chosen = logits.gather(-1, ids[:, None])[:, 0] if log_probabilities else sums
        return Advanced(
            ids.tolist(),
            (chosen - sums).tolist(),
            {i: logits[i] for i in wanted},
            sums.tolist(),
            {i: likeliest(possible[i], k) for i, k in enumerate(candidates or ()) if k},
        )

    def close(self) -> None:
        """There is nothing to let go of."""


def likeliest(logits: Tensor, count: int) -> Candidates:
    """Return the `count` likeliest ids of (V,) and their logits."""
    ordered, ids = logits.sort(descending=True, stable=True)
    kept = min(count, int((ordered > RULED_OUT).sum()))
    return Candidates(ids[:kept].tolist(), ordered[:kept].tolist())


def allowed(logits: Tensor, never: tuple[int, ...], denied: int) -> Tensor:
    """Rule out what must not be chosen at one output, `denied` unless it is -1: (V,) -> (V,)."""
    ruled_out = never if denied < 0 else (*never, denied)
    return logits.index_fill(-1, torch.tensor(ruled_out, dtype=torch.long), RULED_OUT)


def _allowed(logits: Tensor, never: tuple[int, ...], denied: Sequence[int] | None) -> Tensor:
    """Rule out what must not be chosen: (outputs, V) -> (outputs, V)."""
    if never:
        logits = logits.index_fill(-1, torch.tensor(never, device=logits.device), RULED_OUT)
    rows = [row for row, token in enumerate(denied or ()) if token >= 0]
    if denied and rows:
        logits = logits.clone()
        logits[rows, [denied[row] for row in rows]] = RULED_OUT
    return logits
