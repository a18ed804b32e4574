"""What the rows of a step cost, measured on the machine at hand.

A row's price depends on how many there are. While a step is bound by reading weights, rows are
almost free; from some number on each adds its arithmetic. Where that number lies depends on the
processor and on the kernels, so that a few steps of different sizes are timed at start.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np

from splitformer.model.stepping import StepDecoder

_ROWS, _ROUNDS, _SECONDS = (1, 2, 3, 5, 8, 16, 32), 3, 0.1

_LEAST = 0.03
"""A row costs at least such a part of a step of one row: its attention, and what is done for it in
Python. What is measured at start, over a memory of one row, has been less than half of that."""


@dataclass(frozen=True, slots=True)
class RowCosts:
    """What steps cost by their rows, in any unit; each row costs as much as the one before or more.

    Attributes:
        steps: What steps of 1, 2, ... rows cost, at least two; each further row costs as much as
            the last of these.
    """

    steps: tuple[float, ...]

    def step(self, rows: int) -> float:
        """Return what a step of so many rows costs."""
        steps, beyond = self.steps, rows - len(self.steps)
        return steps[rows - 1] if beyond <= 0 else steps[-1] + beyond * (steps[-1] - steps[-2])

    @classmethod
    def through(cls, measured: Mapping[int, float]) -> Self:
        """Join measured steps by straight lines, below those that the others make look too dear.

        Args:
            measured: What steps cost, by rows; of one row and of at least one other number.
        """
        least = _LEAST * measured[1]
        corners = [(1, measured[1])]
        while corners[-1][0] < max(measured):
            corners.append(_next_corner(corners[-1], measured, least))
        steps = [measured[1]]
        for (rows, cost), (more, dearer) in pairwise(corners):
            steps += [cost + (dearer - cost) * i / (more - rows) for i in range(1, more - rows + 1)]
        return cls(tuple(steps))


def _next_corner(
    corner: tuple[int, float], measured: Mapping[int, float], least: float
) -> tuple[int, float]:
    """Return where the straight line ends that rises least, as far out as there is one."""
    rows, cost = corner
    farther = [more for more in measured if more > rows]
    rises = {more: max(least, (measured[more] - cost) / (more - rows)) for more in farther}
    lowest = min(rises.values())
    end = max(more for more in farther if rises[more] == lowest)
    return end, cost + lowest * (end - rows)


DEAR = RowCosts((1.0, 2.0))
"""A step costs nothing beyond its rows."""


def row_costs_of(decoder: StepDecoder) -> RowCosts:
    """Measure steps of one sequence: of each number of rows, in turns, the fastest counts."""
    counts = [rows for rows in _ROWS if rows <= decoder.config.max_positions]
    if len(counts) < 2:  # there is no place for a guess
        return DEAR
    state = decoder.begin(np.zeros((1, decoder.config.d_model), np.float32))
    fastest = dict.fromkeys(counts, float("inf"))
    rounds, until = 0, time.perf_counter() + _SECONDS
    while rounds < _ROUNDS or time.perf_counter() < until:
        for count in counts:
            began = time.perf_counter()
            decoder.advance([[0] * count], [state], outputs=[count])
            fastest[count] = min(fastest[count], time.perf_counter() - began)
            state.truncate(0)
        rounds += 1
    return RowCosts.through(fastest)
