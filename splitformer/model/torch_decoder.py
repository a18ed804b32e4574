"""The readable torch decoder as a `StepDecoder`: the reference, and the fallback."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from splitformer.model.cache import DecoderState
from splitformer.model.decoder import Decoder
from splitformer.model.drawing import reference_id, reference_place
from splitformer.model.stepping import NOTHING, RULED_OUT, Advanced, Asked, Candidates
from splitformer.native import Draw

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
    drawn = {i: _drawn(possible[i], *draw) for i, draw in asked.draws.items()}
    for i, token in drawn.items():
        ids[i] = max(token, 0)
    sums = logits.logsumexp(-1) if log_probabilities else logits.new_empty(0)
    chosen = logits.gather(-1, ids[:, None])[:, 0] if log_probabilities else sums
    return Advanced(
        [drawn.get(i, token) for i, token in enumerate(ids.tolist())],
        (chosen - sums).tolist(),
        {i: logits[i].cpu().numpy() for i in asked.logits},
        sums.tolist(),
        {i: _likeliest(possible[i], k) for i, k in asked.candidates.items()},
        {i: float(logits[i, token]) for i, token in asked.given.items()},
        {i: attention[i].float().cpu().numpy() for i in asked.attention} if attention else {},
    )


def _drawn(logits: Tensor, count: int, draw: Draw) -> int:
    """Draw an id from the `count` likeliest of (V,), 0: from all; -1 where others may matter."""
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


def _allowed(logits: Tensor, never: tuple[int, ...], denied: Mapping[int, Sequence[int]]) -> Tensor:
    """Rule out what must not be chosen: (outputs, V) -> (outputs, V)."""
    if never:
        logits = logits.index_fill(-1, torch.tensor(never, device=logits.device), RULED_OUT)
    if denied:
        logits = logits.clone()
        for output, ids in denied.items():
            logits[output, list(ids)] = RULED_OUT
    return logits
