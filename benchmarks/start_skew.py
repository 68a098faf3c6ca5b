"""How far from its time does a container start?

Jobs whose times are spread over some minutes, on the twin, which executes the real user-data; its
machines boot as long as published machines do, on a shorter scale. Daemons, API and Postgres are the
product's own (`atemporal.local`), with a broker in memory, which is on no way that counts here. A first
round of jobs that are due at once lets the leads be learned, as in a deployment that has run for a day.

Not cheated: a start is when the container's engine says that it was, not when somebody asked for it; the
program's own time is beside it; the machines' clock is this host's, so no clock is wrong.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from atemporal.lead import DEFAULT_S, LEAST
from atemporal.local.home import Home
from atemporal.local.stack import Stack
from atemporal.model import Attempt, JobSpec
from atemporal.store import attempts, jobs
from atemporal.store.database import Database, server_time
from atemporal.twin.containers.engine import PROCESS, Engine
from atemporal.twin.host.pace import Pace
from atemporal.twin.server import Twin

MEDIAN_S, P95_S = 120.0, 230.0
"""Boots of stock images as users of runners on EC2 report them: 86 to 236 s from queue to start."""


@dataclass(frozen=True)
class Published(Pace):
    """Boots drawn from a log-normal distribution of that median and 95th percentile."""

    scale: float = 1.0

    def boot_of(self, instance_id: str) -> float:
        """The same instance boots as long each time it is asked."""
        sigma = math.log(P95_S / MEDIAN_S) / 1.645
        drawn = random.Random(instance_id).lognormvariate(math.log(MEDIAN_S), sigma)
        return drawn * self.scale


def start_skew(*, many: int = 200, spread_s: float = 200.0, scale: float = 0.05) -> dict[str, Any]:
    """Run it; skews are milliseconds after the time, negative ones before it.

    `scale` is how many of our seconds are one of a published boot.
    """
    with tempfile.TemporaryDirectory() as folder, _system(Path(folder), scale) as database:
        _finished(database, _submitted(database, LEAST + 4, from_s=0, spread_s=0))
        # Later than the default lead: their own leads are learned.
        ids = _submitted(database, many, from_s=DEFAULT_S + 5, spread_s=spread_s)
        tries = _finished(database, ids)
    skews = sorted(_ms(one.start_skew) for one in tries)
    own = sorted(
        int(one.log_tail or 0) / 1e6 - one.start_at.timestamp() * 1e3
        for one in tries
        if one.start_at is not None
    )
    ahead = [one.ahead.total_seconds() for one in tries if one.ahead is not None]
    held = sum(
        one.ready_at is not None and one.start_at is not None and one.ready_at < one.start_at
        for one in tries
    )
    return {
        "jobs": len(tries),
        "spread_s": spread_s,
        "scale": scale,
        "held": held,
        "early": sum(skew < 0 for skew in skews),
        "skew_ms": _quantiles(skews),
        "program_ms": _quantiles(own),
        "ahead_s": _quantiles(sorted(ahead)),
        "lead_s": _quantiles(sorted(one.lead_s or 0.0 for one in tries)),
    }


@contextmanager
def _system(folder: Path, scale: float) -> Iterator[Database]:
    twin = Twin(folder / "twin", engine=PROCESS, pace=Published(scale=scale))
    twin.start()
    os.environ["ATEMPORAL_EC2_ENDPOINT_URL"] = twin.url
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "local")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "local")
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    stack = Stack(Home(folder / "home"), engine=Engine(PROCESS))
    try:
        stack.start()
        yield stack.database
    finally:
        stack.stop()
        twin.stop(power_off=True)
        del os.environ["ATEMPORAL_EC2_ENDPOINT_URL"]


def _submitted(database: Database, many: int, *, from_s: float, spread_s: float) -> Sequence[UUID]:
    with database.begin() as tx:
        first = server_time(tx) + timedelta(seconds=from_s)
        specs = [
            JobSpec(
                image="busybox",
                command=("date", "+%s%N"),
                ports=(),
                time=first + timedelta(seconds=spread_s * number / many),
            )
            for number in range(many)
        ]
        return [one.job_id for one in jobs.submit(tx, specs, actor="benchmark")]


def _finished(database: Database, ids: Sequence[UUID]) -> list[Attempt]:
    """Wait for the jobs' ends; each has one attempt, which started."""
    until = time.monotonic() + 900
    while True:
        with database.begin() as tx:
            found = attempts.of_jobs(tx, ids, logs=True)
        tries = [one for of_one in found.values() for one in of_one]
        if len(tries) == len(ids) and all(one.exited_at for one in tries):
            assert all(one.started_at for one in tries), "one never started"
            return tries
        if time.monotonic() > until:
            raise TimeoutError(f"{sum(one.exited_at is None for one in tries)} do not end")
        time.sleep(1)


def _ms(skew: timedelta | None) -> float:
    assert skew is not None
    return skew.total_seconds() * 1000


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    at = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    found = {name: values[math.ceil(part * len(values)) - 1] for name, part in at.items()}
    return {
        "least": round(values[0], 3),
        **{name: round(value, 3) for name, value in found.items()},
        "most": round(values[-1], 3),
        "mean": round(statistics.fmean(values), 3),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--many", type=int, default=200)
    parser.add_argument("--spread-s", type=float, default=200.0)
    parser.add_argument("--scale", type=float, default=0.05)
    print(json.dumps(start_skew(**vars(parser.parse_args())), indent=2))
