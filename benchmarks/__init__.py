"""Benchmarks: us and the peers on the same weights, in one run, as ratios.

`python -m benchmarks SCENARIO [--quick]` prints one line per figure, `name value`. Every timing is
taken in interleaved rounds, so that a machine whose speed drifts treats all contestants alike, and
only ratios taken in one run mean anything.
"""
