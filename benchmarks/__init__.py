"""Benchmarks: us and the peers on the same weights, in one run, as ratios.

`python -m benchmarks SCENARIO [--quick]` prints one line per figure, `name value`. Every timing is
taken in interleaved rounds, contestants of one ratio side by side, so that a machine whose speed
changes treats all alike; only ratios of one run mean anything.
"""
