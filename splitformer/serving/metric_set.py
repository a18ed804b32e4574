"""Making metrics in one registry, with a common beginning of their names."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from splitformer.serving.counters import QuickCounter
from splitformer.serving.histograms import StepHistogram


class MetricSet:
    """Makes metrics in one registry.

    Quick counters take no lock: only one thread may write to each.

    Args:
        prefix: What their names begin with.
        registry: Where they are scraped.
    """

    def __init__(self, prefix: str, registry: CollectorRegistry) -> None:
        self._prefix = prefix
        self._registry = registry

    def _gauge(self, name: str, explanation: str, *labels: str) -> Gauge:
        return Gauge(self._prefix + name, explanation, labels, registry=self._registry)

    def _counter(self, name: str, explanation: str, *labels: str) -> Counter:
        return Counter(self._prefix + name, explanation, labels, registry=self._registry)

    def _quick_counter(self, name: str, explanation: str, *labels: str) -> QuickCounter:
        return QuickCounter(self._prefix + name, explanation, labels, self._registry)

    def _histogram(
        self, name: str, explanation: str, buckets: Sequence[float], *labels: str
    ) -> Histogram:
        return Histogram(
            self._prefix + name, explanation, labels, buckets=buckets, registry=self._registry
        )

    def _step_histogram(
        self, name: str, explanation: str, buckets: Sequence[float]
    ) -> StepHistogram:
        return StepHistogram(self._prefix + name, explanation, buckets, self._registry)
