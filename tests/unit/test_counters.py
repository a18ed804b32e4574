"""The counter of one thread shows what the library's shows."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, generate_latest

from splitformer.serving.counters import QuickCounter

SERIES = (("Decode", "OK"), ("Decode", "NOT_FOUND"), ("Step", "OK"))


def lines(registry: CollectorRegistry) -> set[str]:
    found = generate_latest(registry).decode().splitlines()
    return {line for line in found if "_created" not in line}


def test_it_shows_what_the_library_shows() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    quick = QuickCounter("calls", "Calls.", ("method", "code"), ours)
    usual = Counter("calls", "Calls.", ("method", "code"), registry=theirs)
    for count, values in enumerate(SERIES):
        for _ in range(count):
            quick.labels(*values).inc()
            usual.labels(*values).inc()
        quick.labels(*values).inc(2.5)
        usual.labels(*values).inc(2.5)
    assert lines(ours) == lines(theirs)


def test_without_labels_there_is_one_series_from_the_start() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    tokens = QuickCounter("tokens", "Tokens.", (), ours)
    Counter("tokens", "Tokens.", registry=theirs)
    assert lines(ours) == lines(theirs)
    tokens.inc(3)
    assert ours.get_sample_value("tokens_total") == 3
