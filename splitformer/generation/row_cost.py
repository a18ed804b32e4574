"""What one more row costs in a step, measured on the machine at hand."""

from __future__ import annotations

import time

import numpy as np

from splitformer.model.stepping import StepDecoder

_ROWS, _ROUNDS, _SECONDS = 5, 3, 0.03
_MOST = 16.0


def overhead_of(decoder: StepDecoder) -> float:
    """Measure what a step of one sequence costs beyond its rows, in rows.

    Steps of one row and of several take turns; of each the fastest counts.
    """
    state = decoder.begin(np.zeros((1, decoder.config.d_model), np.float32))
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
    row = (several - one) / max(1, counts[1] - 1)
    return max(0.0, min(_MOST, one / row - 1)) if row > 0 else _MOST
