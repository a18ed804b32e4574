"""Ranking the continuations of several hypotheses together, in the library."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from splitformer.native.binding import library

Continuations = list[tuple[float, int, int, float]]
"""Minus the sum, the hypothesis, the id and its log-probability of each, best first."""


def continuations(
    candidates: array[int],
    begin: int,
    room: int,
    log_sums: array[float],
    first: int,
    totals: Sequence[float],
    most: int,
) -> Continuations:
    """Return the best continuations of some hypotheses, of equals the first.

    Args:
        candidates: Pairs (logit, id) of a step's answer.
        begin: Where in these the hypotheses' begin.
        room: How many each has; those that it has not have the id -1.
        log_sums: Of all outputs of the step.
        first: Output of the first hypothesis.
        totals: Sums of log-probabilities of the hypotheses.
        most: How many to return at most.
    """
    sums, own = array("d", bytes(8 * most)), array("d", bytes(8 * most))
    hypotheses, ids = array("i", bytes(4 * most)), array("i", bytes(4 * most))
    before = array("d", totals)
    to = [each.buffer_info()[0] for each in (sums, own, hypotheses, ids)]
    count = library().rank(
        candidates.buffer_info()[0] + 8 * begin,
        log_sums.buffer_info()[0] + 4 * first,
        *(before.buffer_info()[0], len(before), room),
        *(*to, most),
    )
    return [*zip(sums, hypotheses, ids, own, strict=True)][:count]
