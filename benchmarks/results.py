"""Results: read and written as JSON, one file a question; and what is computed of them.

Promise: a figure is the median of its runs; a ratio is made of medians of one run of the harness only,
and there is none when the two were taken at different times.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Result = dict[str, Any]
"""One question: `title`, `method`, `measures`; a measure has `conditions` and `runs`, or `failed`."""


def read(folder: Path) -> dict[str, Result]:
    """All questions' results in a folder, by the question's name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def write(folder: Path, name: str, result: Result) -> None:
    """Write one question's results; measures that were not run now keep what they had."""
    path = folder / f"{name}.json"
    kept = json.loads(path.read_text())["measures"] if path.exists() else {}
    merged = {**result, "measures": kept | result["measures"]}
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(merged, indent=1, sort_keys=True) + "\n")


@dataclass(frozen=True)
class Figure:
    """Where a number is found: the question, its measure, and the figure's name."""

    question: str
    measure: str
    key: str

    def runs(self, results: Mapping[str, Result]) -> list[float]:
        """Its value in each run; empty when it was not measured."""
        return dict(figures(self._measure(results).get("runs", ()))).get(self.key, [])

    def median(self, results: Mapping[str, Result]) -> float | None:
        """The median of its runs."""
        values = self.runs(results)
        return statistics.median(values) if values else None

    def taken(self, results: Mapping[str, Result]) -> str | None:
        """Which run of the harness it was measured in."""
        found = self._measure(results).get("conditions", {}).get("run")
        return None if found is None else str(found)

    def _measure(self, results: Mapping[str, Result]) -> Mapping[str, Any]:
        found = results.get(self.question, {}).get("measures", {}).get(self.measure, {})
        assert isinstance(found, dict)
        return found


def ratio(over: Figure, under: Figure, results: Mapping[str, Result]) -> float | None:
    """The median of one by that of another, if both were measured in one run of the harness."""
    high, low = over.median(results), under.median(results)
    if high is None or not low or over.taken(results) != under.taken(results):
        return None
    return high / low


def figures(runs: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[float]]]:
    """Each number of a measure's runs, with its values; numbers within figures by a dotted name."""
    flat = [dict(_flat(run)) for run in runs]
    for name in dict.fromkeys(name for run in flat for name in run):
        yield name, [run[name] for run in flat if name in run]


def _flat(run: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    for name, value in run.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{above}{name}", float(value)
