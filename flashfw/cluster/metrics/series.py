"""Counters and histograms that cost a dictionary's lookup: they are on the way of every request.

The client library makes the text of them. Its own counters take a lock and a string per label each time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

Labels = tuple[str, ...]


class Counter:
    """How often something happened, by labels. For one thread."""

    def __init__(self, name: str, text: str, labels: Labels = ()) -> None:
        self.name = name
        self.text = text
        self.labels = labels
        self.values: defaultdict[Labels, float] = defaultdict(float)
        if not labels:
            self.values[()] = 0.0

    def add(self, *labels: str, by: float = 1.0) -> None:
        """It happened, once or `by` times."""
        self.values[labels] += by

    def family(self) -> CounterMetricFamily:
        """As the library has it."""
        family = CounterMetricFamily(self.name, self.text, labels=self.labels)
        for labels, value in self.values.items():
            family.add_metric(labels, value)
        return family


class Histogram:
    """How long something took, by labels, in buckets. For one thread."""

    def __init__(self, name: str, text: str, labels: Labels, *, bounds_s: tuple[float, ...]) -> None:
        self.name = name
        self.text = text
        self.labels = labels
        self._bounds = bounds_s
        self._counts: dict[Labels, list[int]] = {}
        self._sums: defaultdict[Labels, float] = defaultdict(float)

    def observe(self, seconds: float, *labels: str) -> None:
        """It took so long."""
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self._bounds) + 1)
        counts[bisect_left(self._bounds, seconds)] += 1
        self._sums[labels] += seconds

    def family(self) -> HistogramMetricFamily:
        """As the library has it."""
        family = HistogramMetricFamily(self.name, self.text, labels=self.labels)
        for labels in self._counts:
            family.add_metric(labels, list(self._buckets(labels)), self._sums[labels])
        return family

    def _buckets(self, labels: Labels) -> Iterator[tuple[str, float]]:
        total = 0
        for bound, count in zip((*self._bounds, None), self._counts[labels], strict=True):
            total += count
            yield "+Inf" if bound is None else repr(bound), total
