"""What a step takes by its rows: measured once at the start, then followed while it is at work."""

from __future__ import annotations

import time

import torch

from splitformer.model.stepping import StepDecoder

_ROWS, _ROUNDS, _SECONDS = 5, 3, 0.03
_MOST = 16.0

_FADING = 0.05
"""What one turn counts for, against those before it."""

_ODD = 8.0
"""A turn this many times longer than usual was interrupted and counts for nothing."""


class RowCost:
    """The turns of a sequence that is alone: from one step's beginning to the next one's.

    Args:
        one: Seconds of a turn with one row.
        row: Seconds of every further row.

    Attributes:
        overhead: What a turn takes beyond its rows, in rows.
    """

    __slots__ = ("_least", "_one", "_row", "overhead")

    def __init__(self, one: float, row: float) -> None:
        self._one, self._row, self._least = one, row, row / 2
        self._settle()

    def observe(self, seconds: float, rows: int) -> None:
        """Follow what a turn of so many rows took."""
        if seconds > _ODD * (self._one + (rows - 1) * self._row):
            return
        if rows == 1:
            self._one += _FADING * (seconds - self._one)
        else:
            row = (seconds - self._one) / (rows - 1)
            self._row = max(self._least, self._row + _FADING * (row - self._row))
        self._settle()

    def _settle(self) -> None:
        spare, row = self._one - self._row, self._row
        self.overhead = max(0.0, min(_MOST, spare / row)) if row > 0 else _MOST


def row_cost_of(decoder: StepDecoder) -> RowCost:
    """Measure the steps of one sequence, without anything around them.

    Steps of one row and of several take turns; of each the fastest counts.
    """
    state = decoder.begin(torch.zeros(1, decoder.config.d_model))
    counts = (1, min(_ROWS, decoder.config.max_positions))
    fastest = dict.fromkeys(counts, float("inf"))
    rounds, until = 0, time.perf_counter() + _SECONDS
    while rounds < _ROUNDS or time.perf_counter() < until:
        for count in counts:
            began = time.perf_counter()
            decoder.advance([[0] * count], [state], outputs=[count])
            fastest[count] = min(fastest[count], time.perf_counter() - began)
            state.truncate(0)
        rounds += 1
    one, several = (fastest[count] for count in counts)
    return RowCost(one, max(0.0, several - one) / max(1, counts[1] - 1))
