"""What `/metrics` shows, and what `docs/metrics.md` says that it shows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from atemporal.metrics import Aggregate

PREFIX = "atemporal_"
PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"

Series = tuple[str, frozenset[tuple[str, str]]]


def documented() -> Mapping[str, list[str]]:
    """The page's table: each metric, with the processes that show it."""
    return {name: one.processes for name, one in page().items()}


class Documented(NamedTuple):
    """A row of the page's table: the type, PromQL's operator over replicas, labels, and whose it is.

    A label whose values are open, because people name them, has none.
    """

    kind: str
    operator: str
    labels: dict[str, list[str]]
    processes: list[str]


def page() -> dict[str, Documented]:
    """The page's table, by metric."""
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \| (\w+) \| (.*?) \| ([a-z, ]+) \|", PAGE.read_text(), re.M
    )
    return {
        name: Documented(kind, Aggregate(replicas).operator, _labels(labels), of.split(", "))
        for name, kind, replicas, labels, of in rows
    }


def _labels(text: str) -> dict[str, list[str]]:
    named = [re.findall(r"`([^`]+)`", part) for part in text.split("; ")]
    return {name: values for name, *values in filter(None, named)}


def families(text: str) -> dict[str, str]:
    """Our metrics in a text of `/metrics`, by name, each with its type."""
    return dict(re.findall(rf"^# TYPE ({PREFIX}\w+) (\w+)$", text, re.M))


def series(text: str) -> dict[Series, float]:
    """The values of our series in a text of `/metrics`."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith(PREFIX)
    }
