"""What `/metrics` shows, and what `docs/metrics.md` says that it shows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

PREFIX = "atemporal_"
PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"

Series = tuple[str, frozenset[tuple[str, str]]]


def documented() -> Mapping[str, list[str]]:
    """The page's table: each metric, with the processes that show it."""
    rows = re.findall(r"^\| `(\w+)` \| \w+ \|.*?\| ([a-z, ]+) \|", PAGE.read_text(), re.M)
    return {name: processes.split(", ") for name, processes in rows}


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
