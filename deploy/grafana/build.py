"""Writes the dashboards: `python -m deploy.grafana.build`."""

from __future__ import annotations

import json
from pathlib import Path

from deploy.grafana.daemons import API, LAUNCHER, REAPER, SCHEDULER
from deploy.grafana.overview import OVERVIEW
from deploy.grafana.panel import JSONEncoder

FOLDER = Path(__file__).parent / "dashboards"


def files() -> dict[Path, str]:
    """Every dashboard's whole text."""
    return {
        FOLDER / f"{str(one.uid).removeprefix('atemporal-')}.json": json.dumps(
            one, cls=JSONEncoder, indent=2, sort_keys=True
        )
        + "\n"
        for one in (OVERVIEW, SCHEDULER, LAUNCHER, REAPER, API)
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text)
