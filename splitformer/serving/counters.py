"""Counters for what happens per token and per call: one writer, no lock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector


class Tally:
    """One series of a counter, for a single thread."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        """Count."""
        self.value += amount


class QuickCounter(Collector):
    """Counts as `prometheus_client.Counter` does, a tenth as dear, as only one thread may count.

    Args:
        name: Of the metric, without `_total`.
        explanation: What it counts.
        labels: Their names.
        registry: Where it is scraped.
    """

    def __init__(
        self, name: str, explanation: str, labels: Sequence[str], registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._explanation = explanation
        self._labelnames = tuple(labels)  # the library's name for them
        self._series: dict[tuple[str, ...], Tally] = {} if labels else {(): Tally()}
        registry.register(self)

    def labels(self, *values: str) -> Tally:
        """Return the series with these values of the labels, at 0 if it is new."""
        assert len(values) == len(self._labelnames)
        return self._series.get(values) or self._series.setdefault(values, Tally())

    def inc(self, amount: float = 1) -> None:
        """Count, where there are no labels."""
        self._series[()].value += amount

    @property
    def value(self) -> float:
        """What was counted, where there are no labels."""
        return self._series[()].value

    def describe(self) -> Iterator[Metric]:
        """Say what it is, without values."""
        yield self._family()

    def collect(self) -> Iterator[Metric]:
        """Give the values as they are now."""
        family = self._family()
        for values, tally in list(self._series.items()):
            family.add_metric(values, tally.value)
        yield family

    def _family(self) -> CounterMetricFamily:
        return CounterMetricFamily(self._name, self._explanation, labels=self._labelnames)
