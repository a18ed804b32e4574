"""The readable torch decoder as a `StepDecoder`: the reference, and the fallback."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from splitformer.model.cache import DecoderState
from splitformer.model.decoder import Decoder
from splitformer.model.drawing import placed, reference_id, reference_place
from splitformer.model.stepping import NOTHING, RULED_OUT, Advanced, Asked, Candidates
from splitformer.native import Draw, FloatArray

PRECISION_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


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
    def begin(self, memory: ArrayLike) -> DecoderState:
        """Project a memory (S, D) into every layer's cross keys and values, once."""
        return self._decoder.begin(torch.as_tensor(memory))

    @torch.inference_mode()
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
        """Compute the rows of new tokens and choose the next token of each sequence."""
        shown: list[Tensor] | None = [] if asks_attention(asked) else None
        logits = self._decoder.step(tokens, states, outputs, shown)  # (outputs, V)
        positions = positions_of(states, outputs)
        return answers(logits, never, asked, log_probabilities, positions, shown)

    def close(self) -> None:
        """There is nothing to let go of."""


def answers(
    logits: Tensor,
    never: tuple[int, ...],
    asked: Asked,
    log_probabilities: bool,
    positions: Sequence[int],
    attention: Sequence[Tensor] | None,
) -> Advanced:
    """Answer what is asked about the logits of a step.

    Args:
        logits: (outputs, V).
        never: Ids that no sequence may get.
        asked: What is asked.
        log_probabilities: Compute them.
        positions: Of the outputs.
        attention: Over the memories (S,), of each output; None: nobody asks.
    """
    possible = _allowed(logits, never, asked)
    ids = possible.argmax(-1)  # (outputs,)
    drawn = {
        i: _drawn(possible[i], placed(each.draw, each.seed, positions[i] - each.first))
        for i, each in asked.items()
        if each.draw is not None
    }
    for i, token in drawn.items():
        ids[i] = max(token, 0)
    sums = logits.logsumexp(-1) if log_probabilities else logits.new_empty(0)
    chosen = logits.gather(-1, ids[:, None])[:, 0] if log_probabilities else sums
    return Advanced(
        [drawn.get(i, token) for i, token in enumerate(ids.tolist())],
        (chosen - sums).tolist(),
        {i: logits[i].cpu().numpy() for i, each in asked.items() if each.logits},
        sums.tolist(),
        {i: _likeliest(possible[i], n) for i, each in asked.items() if (n := each.candidates)},
        {i: float(logits[i, each.given]) for i, each in asked.items() if each.given >= 0},
        _numbers(attention, asked) if attention else {},
    )


def positions_of(states: Sequence[DecoderState], outputs: Sequence[int] | None) -> list[int]:
    """Return the position of each output of a step that has been taken."""
    many = outputs or [1] * len(states)
    return [
        state.length - left
        for state, count in zip(states, many, strict=True)
        for left in range(count, 0, -1)
    ]


def asks_attention(asked: Asked) -> bool:
    """True if the attention of any output is wanted."""
    return any(question.attention for question in asked.values())


def _numbers(attention: Sequence[Tensor], asked: Asked) -> dict[int, FloatArray]:
    return {i: attention[i].float().cpu().numpy() for i, each in asked.items() if each.attention}


def _drawn(logits: Tensor, draw: Draw) -> int:
    """Draw an id from (V,); -1 where others than the likeliest may matter."""
    count = draw.among
    if not count:
        return reference_id(draw, logits.cpu().numpy())
    best = _likeliest(logits, count)
    if not math.isnan(draw.total):
        weights = ((logits.double() - logits.max()) / draw.temperature).exp()
        draw = draw._replace(total=float(weights.sum()))
    values, ids = np.array(best.logits), np.array(best.ids)
    place = reference_place(draw, values, ids, len(ids) < count or count == len(logits))
    return -1 if place < 0 else best.ids[place]


def _likeliest(logits: Tensor, count: int) -> Candidates:
    """Return the `count` likeliest ids of (V,) and their logits."""
    ordered, ids = logits.sort(descending=True, stable=True)
    kept = min(count, int((ordered > RULED_OUT).sum()))
    return Candidates(ids[:kept].tolist(), ordered[:kept].tolist())


def _allowed(logits: Tensor, never: tuple[int, ...], asked: Asked) -> Tensor:
    """Rule out what must not be chosen: (outputs, V) -> (outputs, V)."""
    if never:
        logits = logits.index_fill(-1, torch.tensor(never, device=logits.device), RULED_OUT)
    if denied := {i: list(each.denied) for i, each in asked.items() if each.denied}:
        logits = logits.clone()
        for output, ids in denied.items():
            logits[output, ids] = RULED_OUT
    return logits
