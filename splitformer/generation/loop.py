"""The loop itself: one step of many decodings at once, whatever each of them does with it."""

from __future__ import annotations

from collections.abc import Sequence

from splitformer.generation.decoding import Decoding, Request
from splitformer.model.stepping import StepDecoder


def step(decoder: StepDecoder, batch: Sequence[Decoding], never: tuple[int, ...]) -> None:
    """Take one step: all ask, the decoder computes, all take.

    Args:
        decoder: The model's decoder.
        batch: Decodings that are not finished.
        never: Ids that no target may contain.
    """
    request, firsts = Request(), []
    for decoding in batch:
        firsts.append(request.count)
        decoding.ask(request)
    outputs = request.outputs if request.count > len(request.states) else None
    answer = decoder.advance(request.tokens, request.states, never, request, outputs)
    for decoding, first in zip(batch, firsts, strict=True):
        decoding.take(answer, first)


def run(decoder: StepDecoder, decoding: Decoding, never: tuple[int, ...]) -> None:
    """Take steps with one decoding alone until it is finished."""
    while not decoding.finished:
        step(decoder, [decoding], never)
