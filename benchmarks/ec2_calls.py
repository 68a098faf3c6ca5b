"""How many calls to EC2 do a hundred jobs cost, and how many does EC2 refuse as too many?

Two of each daemon, real Postgres and RabbitMQ, and the twin with the buckets that AWS publishes. `calm`:
every job runs for a second and ends well. `hostile`: the twin injects the faults of the chaos run, in
every kind of call and machine; nothing is killed. Jobs come evenly, at the pace that EC2's own limit of
instances allows. Counted is every call that the twin's log shows, from the first submit until every
instance is confirmed gone.

Not cheated: the limits and the sweeps' interval are the defaults. The deadlines are a tenth of the
defaults or less, so that machines that never boot are given up within the run.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from atemporal.states import JobState
from atemporal.store import attempts
from tests.chaos.fleet import SETTINGS, Fleet
from tests.chaos.run import TWIN_FAULTS
from tests.counting import jobs_by_state

_FAST = ("SWEEP_INTERVAL_S", "RUN_INSTANCES_RATE", "POLL_INTERVAL_S")
SIGN_S = 1.0
"""Calls in flight are refused together: what comes within this is one sign of throttling."""


def calm(*, jobs: int = 100, a_second: float = 2.0) -> dict[str, Any]:
    """Calls per hundred jobs when all goes well."""
    return _run(jobs, a_second, faults=())


def hostile(*, jobs: int = 100, a_second: float = 1.0) -> dict[str, Any]:
    """Calls per hundred jobs in the weather of the chaos run."""
    return _run(jobs, a_second, faults=TWIN_FAULTS)


def _run(jobs: int, a_second: float, *, faults: Sequence[dict[str, Any]]) -> dict[str, Any]:
    settings = {
        name: value
        for name, value in SETTINGS.items()
        if name.removeprefix("ATEMPORAL_") not in _FAST
    }
    with tempfile.TemporaryDirectory() as folder:
        fleet = Fleet(
            Path(folder),
            random.Random(1),
            settings=settings,
            twin=("--limits", "aws", "--boot", "2", "--shutdown", "1"),
        )
        try:
            return _measured(fleet, jobs, a_second, faults)
        finally:
            fleet.close()


def _measured(
    fleet: Fleet, jobs: int, a_second: float, faults: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    fleet.wait("the API answers", lambda: _ready(fleet.api_url), 60)
    before = len(_calls(fleet))
    for fault in faults:
        httpx.post(f"{fleet.twin_url}/_twin/faults", json=fault).raise_for_status()
    began = time.monotonic()
    for number in range(jobs):
        due = began + number / a_second
        time.sleep(max(0.0, due - time.monotonic()))
        _submit(fleet.api_url)
    fleet.wait("every instance is gone", lambda: _over(fleet), 600)
    seconds = time.monotonic() - began
    calls = _calls(fleet)[before:]
    per_hundred = 100 / jobs
    kinds = Counter(call["action"] for call in calls)
    refused = [c for c in calls if c["code"] == "RequestLimitExceeded" and not c["fault"]]
    signs = [call["at"] for call in calls if call["code"] == "RequestLimitExceeded"]
    beyond = [c for c in refused if signs and c["at"] > signs[0] + SIGN_S]
    with fleet.database.begin() as tx:
        ended = jobs_by_state(tx)
    return {
        "jobs": jobs,
        "seconds": round(seconds, 1),
        "finished": ended.get(JobState.FINISHED, 0),
        "describe_per_100": round(
            sum(n for kind, n in kinds.items() if kind.startswith("Describe")) * per_hundred, 1
        ),
        "console_per_100": round(kinds["GetConsoleOutput"] * per_hundred, 1),
        "run_instances_per_100": round(kinds["RunInstances"] * per_hundred, 1),
        "terminate_per_100": round(kinds["TerminateInstances"] * per_hundred, 1),
        "refused_by_the_buckets": len(refused),
        "refused_beyond_the_first_sign": len(beyond),
        "calls": dict(sorted(kinds.items())),
    }


def _submit(api_url: str) -> None:
    body = {"image": "busybox:1.36", "command": ["sleep", "1"], "ports": [], "infra_retries": 5}
    httpx.post(f"{api_url}/jobs", json=body, timeout=20).raise_for_status()


def _over(fleet: Fleet) -> bool:
    with fleet.database.begin() as tx:
        return set(jobs_by_state(tx)) <= {JobState.FINISHED} and not attempts.still_open(tx)


def _calls(fleet: Fleet) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{fleet.twin_url}/_twin/calls", timeout=30).json()[
        "calls"
    ]
    return found


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=2).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def main() -> None:
    """Print both."""
    os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
    for one in (calm, hostile):
        print(one.__name__, one(), flush=True)


if __name__ == "__main__":
    main()
