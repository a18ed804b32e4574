"""The engine's histogram counts as the library's does."""

from __future__ import annotations

from hypothesis import given, strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from splitformer.serving.histograms import StepHistogram

BUCKETS = (0.001, 0.5, 1, 2.5, 1e6)
VALUES = st.one_of(st.sampled_from(BUCKETS), st.floats(0, 1e9, allow_nan=False))


def lines(registry: CollectorRegistry) -> list[str]:
    found = generate_latest(registry).decode().splitlines()
    return [line for line in found if "_created" not in line]


@given(st.lists(st.tuples(VALUES, st.integers(1, 3)), max_size=30))
def test_it_shows_what_the_library_shows(values: list[tuple[float, int]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    quick = StepHistogram("h", "Some.", BUCKETS, ours)
    usual = Histogram("h", "Some.", buckets=BUCKETS, registry=theirs)
    for value, times in values:
        quick.observe(value, times)
        for _ in range(times):
            usual.observe(value)
    shown, expected = lines(ours), lines(theirs)
    assert sorted(line for line in shown if "_sum" not in line) == sorted(
        line for line in expected if "_sum" not in line
    )
    (total,) = (float(line.split()[1]) for line in shown if line.startswith("h_sum"))
    (other,) = (float(line.split()[1]) for line in expected if line.startswith("h_sum"))
    assert abs(total - other) <= 1e-9 * max(1.0, abs(other))
