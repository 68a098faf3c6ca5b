"""The dashboards as they are committed: their panels' queries, as Grafana would send them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parents[1] / "deploy" / "grafana" / "dashboards"
FILES = sorted(FOLDER.glob("*.json"))
VARIABLES = {"$deployment": ".*", "$__rate_interval": "10m"}


class Query(NamedTuple):
    """One query of a panel, with its variables put in."""

    panel: str
    query: str


def load(path: Path) -> dict[str, Any]:
    """A dashboard's JSON."""
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels that show something."""
    yield from (one for one in dashboard["panels"] if one["type"] != "row")


def queries() -> list[Query]:
    """Every query of every dashboard."""
    return [
        Query(f"{path.stem}: {panel['title']}", filled(target["expr"]))
        for path in FILES
        for panel in panels(load(path))
        for target in panel["targets"]
    ]


def filled(query: str) -> str:
    """A query with its variables put in."""
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    return query
