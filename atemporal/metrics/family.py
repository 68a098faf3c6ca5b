"""One metric's declaration: its name, its sentence, and the values that its labels can have.

Promise: every series whose labels have declared values is on `/metrics` from the start, a counter or a
gauge with 0: `rate()` sees the first increase, and an alarm's expression finds something.
Mechanism: the values are declared once, with the metric, or by `series` in whichever module knows them.
A gauge is declared with how what its replicas show becomes one number: none can be without.
Names are written as `/metrics` shows them. They follow Prometheus' guide, by the rules that
`tests/unit/test_metrics.py` states.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import product
from typing import TypeVar

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

Metric = TypeVar("Metric", Counter, Gauge, Histogram)

# They would double the series, as gauges whose names say neither what they measure nor the unit.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Aggregate(StrEnum):
    """How what the replicas of a daemon show of one metric becomes one number.

    `sum`: each shows its own part. `max`, `min`: each shows what it sees of the same whole, so a sum
    would count it many times. `one`: one replica has it, and the others show 0, so it is the `max`.
    """

    SUM = "sum"
    MAX = "max"
    MIN = "min"
    ONE = "one"

    @property
    def operator(self) -> str:
        """PromQL's operator for it."""
        return "max" if self is Aggregate.ONE else self.value


@dataclass(frozen=True)
class Family:
    """What is declared of one metric; `labels` are its labels with the values declared so far."""

    name: str
    kind: str
    text: str
    labels: dict[str, list[str]] = field(default_factory=dict)
    aggregate: Aggregate = Aggregate.SUM


FAMILIES: dict[str, Family] = {}
"""What this process has declared, by name."""

_of: dict[Counter | Gauge | Histogram, Family] = {}


def counter(name: str, text: str, **labels: Iterable[str]) -> Counter:
    """Declare a counter, each label with all its values, or with none to leave them to `series`."""
    return _declared(Counter(name, text, list(labels)), Family(name, "counter", text), labels)


def gauge(name: str, text: str, *, aggregate: Aggregate, **labels: Iterable[str]) -> Gauge:
    """Declare a gauge, with how to put those of several replicas together; labels as of a counter."""
    family = Family(name, "gauge", text, aggregate=aggregate)
    return _declared(Gauge(name, text, list(labels)), family, labels)


def histogram(
    name: str,
    text: str,
    *,
    buckets: Sequence[float] = Histogram.DEFAULT_BUCKETS,
    **labels: Iterable[str],
) -> Histogram:
    """Declare a histogram; labels as of a counter.

    `buckets` are the upper bounds of its buckets; prometheus_client's are 5 ms to 10 s.
    """
    made = Histogram(name, text, list(labels), buckets=buckets)
    return _declared(made, Family(name, "histogram", text), labels)


def series(metric: Counter | Gauge | Histogram, **labels: Iterable[str]) -> None:
    """Bring the series of these values into being; a label that is not named has all it has so far."""
    known = _of[metric].labels
    values = known | {label: list(map(str, given)) for label, given in labels.items()}
    for combination in product(*values.values()):
        metric.labels(**dict(zip(values, combination, strict=True)))
    for label, given in values.items():
        known[label] += [value for value in given if value not in known[label]]


def clear(*gauges: Gauge) -> None:
    """Show 0 in every series of these gauges: it is another replica that has them now."""
    for one in gauges:
        labels = _of[one].labels
        for combination in product(*labels.values()):
            (one.labels(*combination) if labels else one).set(0)


def exposition() -> tuple[bytes, str]:
    """All metrics of this process as text, and the text's content type."""
    return generate_latest(), CONTENT_TYPE_LATEST


def _declared(metric: Metric, family: Family, labels: dict[str, Iterable[str]]) -> Metric:
    FAMILIES[family.name] = _of[metric] = family
    family.labels.update({label: [] for label in labels})
    if labels:
        series(metric, **labels)
    return metric
