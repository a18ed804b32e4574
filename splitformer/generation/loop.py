"""The loop itself: one step of many decodings at once, whatever each of them does with it."""

from __future__ import annotations

from collections.abc import Sequence

from splitformer.generation.decoding import Decoding, Request
from splitformer.model.stepping import Advanced, StepDecoder

Failures = list[tuple[Decoding, Exception]]
"""Decodings that could not take a step, and why."""


def step(decoder: StepDecoder, batch: Sequence[Decoding], never: tuple[int, ...]) -> Failures:
    """Take one step: all ask, the decoder computes, all take.

    A decoding that cannot be computed is not its neighbours' fault: where a step of many fails,
    each takes it alone. Nothing has been written then, and asking twice does no harm.

    Args:
        decoder: The model's decoder.
        batch: Decodings that are not finished.
        never: Ids that no target may contain.

    Returns:
        Those that failed; all others have taken their step.
    """
    try:
        answer, firsts = _computed(decoder, batch, never)
    except Exception as error:
        if len(batch) == 1:
            return [(batch[0], error)]
        return [failure for each in batch for failure in step(decoder, [each], never)]
    failures: Failures = []
    for decoding, first in zip(batch, firsts, strict=True):
        try:
            decoding.take(answer, first)
        except Exception as error:
            failures.append((decoding, error))
    return failures


def _computed(
    decoder: StepDecoder, batch: Sequence[Decoding], never: tuple[int, ...]
) -> tuple[Advanced, list[int]]:
    """Return a step's answers, and the number of each decoding's first output."""
    request, firsts = Request(company=sum([each.width for each in batch])), []
    for decoding in batch:
        firsts.append(request.count)
        decoding.ask(request)
    outputs = request.outputs if request.count > len(request.states) else None
    answer = decoder.advance(
        request.tokens, request.states, never, request.asked, outputs, focus=request.focus
    )
    return answer, firsts


def run(decoder: StepDecoder, decoding: Decoding, never: tuple[int, ...]) -> None:
    """Take steps with one decoding alone until it is finished; what fails is raised."""
    while not decoding.finished:
        for _, error in step(decoder, [decoding], never):
            raise error
