"""A histogram for what happens every step or call: no lock, equal values at once."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class StepHistogram(Collector):
    """Counts values into buckets, as `prometheus_client.Histogram` does, without a lock of its own.

    Engines of several models may write to one: CPython changes threads at calls and jumps only, and
    an addition has neither. A scrape may see a step half counted; the next one sees all of it.

    Args:
        name: Of the metric.
        explanation: What it measures.
        buckets: Upper bounds, ascending; infinity is added.
        registry: Where it is scraped.
    """

    def __init__(
        self, name: str, explanation: str, buckets: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._explanation = explanation
        self._bounds = tuple(map(float, buckets))
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value, `times` over."""
        bucket = bisect_left(self._bounds, value)
        self._counts[bucket] += times
        self._sum += value * times

    def describe(self) -> Iterator[Metric]:
        """Say what it is, without values."""
        yield HistogramMetricFamily(self._name, self._explanation)

    def collect(self) -> Iterator[Metric]:
        """Give the values as they are now."""
        total, buckets = 0, list[tuple[str, float]]()
        bounds = (*self._bounds, float("inf"))
        for bound, count in zip(bounds, list(self._counts), strict=True):
            total += count
            buckets.append((floatToGoString(bound), total))  # type: ignore[no-untyped-call]
        family = HistogramMetricFamily(self._name, self._explanation)
        family.add_metric([], buckets, self._sum)
        yield family
