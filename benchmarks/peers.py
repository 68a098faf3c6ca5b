"""How fast are others at the same work: jobs that are due, out of 1,000,000 of another day, to a
handler?

Each peer runs in a process of its own with the versions in `peers.txt`, in the configuration that its
documentation names for throughput, on the same servers in the same run. The due jobs were scheduled
like the others, and stand among them. The clock runs from the start of a worker that is otherwise
ready to the end of the last handler, which does nothing; after `limit_s` seconds what is done counts.

Not the same, to the peers' favour: their handler is called in the worker's own process, while ours
crosses a broker into another process that acknowledges. They write the outcome of the job, while ours
writes the claim and a row of history.

- `pgqueuer`: asyncpg, uvloop, batches of 100. - `procrastinate`: 50 jobs side by side. It walks its
jobs in order of priority, past all of another day. - `apscheduler`: 3.11, the released line, with its
SQLAlchemy job store and ten threads; 4.0 is an alpha that
  its author advises against.
- `oban`: a queue of 100, its stager at the default second. - `celery`: ETA tasks over a RabbitMQ
queue, two processes, a prefetch of 100 each. Tasks of another day wait in
  the worker's memory, not in a table: a million of them would take minutes to take in, and gigabytes.
  It is measured with as many as `future_rows` says, all taken in beforehand.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from importlib.metadata import distributions
from pathlib import Path

from benchmarks.checkout import ROOT
from benchmarks.peer_environment import FOLDER, python
from benchmarks.wiring import Figures

FUTURE = 1_000_000


def pgqueuer(
    database_url: str, due: int = 10_000, future: int = FUTURE, limit_s: float = 30
) -> Figures:
    """Handlers a second of pgqueuer."""
    return _run("pgqueuer", database_url, due, future, limit_s)


def procrastinate(
    database_url: str, due: int = 10_000, future: int = FUTURE, limit_s: float = 20
) -> Figures:
    """Handlers a second of procrastinate."""
    return _run("procrastinate", database_url, due, future, limit_s)


def apscheduler(
    database_url: str, due: int = 5_000, future: int = FUTURE, limit_s: float = 30
) -> Figures:
    """Handlers a second of APScheduler."""
    return _run("apscheduler", database_url, due, future, limit_s)


def oban(
    database_url: str, due: int = 10_000, future: int = FUTURE, limit_s: float = 30
) -> Figures:
    """Handlers a second of oban."""
    return _run("oban", database_url, due, future, limit_s)


def celery(
    broker_url: str, due: int = 3_000, future: int = 20_000, limit_s: float = 30
) -> Figures:
    """Handlers a second of Celery."""
    return _run("celery", broker_url, due, future, limit_s)


def _run(peer: str, url: str, due: int, future: int, limit_s: float) -> Figures:
    interpreter = python()
    with tempfile.TemporaryDirectory(prefix="atemporal-peer-") as folder:
        done = subprocess.run(
            [
                *(str(interpreter), "-m", f"benchmarks.peer_runs.{peer}"),
                *(url, str(due), str(future), str(limit_s)),
            ],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"{peer} ended with {done.returncode}")
    figures: Figures = json.loads(done.stdout.strip().splitlines()[-1])
    (version,) = {
        one.version
        for one in distributions(path=[str(path) for path in _packages()])
        if one.name.lower() == peer
    }
    return {"version": version, **figures}


def _packages() -> list[Path]:
    return list(FOLDER.glob("lib/python*/site-packages"))
