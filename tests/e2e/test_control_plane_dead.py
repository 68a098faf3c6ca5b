"""With every daemon and the API dead, each machine still ends by its own deadline, and nothing of
what it said is lost: the daemons, started again, read each exit from its console.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atemporal.states import JobState, Outcome
from tests.e2e.system import SERVICES, System, TwinProcess, instances

BOOT_S, PULL_S, TIMEOUT_S, SLACK_S = 15, 10, 20, 2
DEADLINE_S = BOOT_S + PULL_S + TIMEOUT_S + SLACK_S
# From RunInstances to the machine's first process, and from its last to `terminated`, on a busy
# machine.
MARGIN_S = 30
CODES = (0, 7, 42)


@pytest.fixture
def system(
    tmp_path: Path, database_url: str, broker_url: str, twin: TwinProcess
) -> Iterator[System]:
    """All services, with machines that may live for half a minute."""
    system = System(
        tmp_path,
        database_url=database_url,
        broker_url=broker_url,
        ec2_url=twin.url,
        certificates=twin.certificates,
        ATEMPORAL_BOOT_DEADLINE_S=str(BOOT_S),
        ATEMPORAL_PULL_DEADLINE_S=str(PULL_S),
        ATEMPORAL_MACHINE_SLACK_S=str(SLACK_S),
        ATEMPORAL_HOLD_LIMIT_S="0",
    )
    try:
        system.start(*SERVICES)
        yield system
    finally:
        system.close()


def test_machines_end_by_themselves_and_their_exits_are_recovered(
    system: System, twin: TwinProcess, tmp_path: Path
) -> None:
    before, go = len(instances(twin.url)), tmp_path / "go"
    wait = f"until [ -e {go} ]; do sleep 0.1; done"
    jobs = {
        system.submit(
            "sh", "-c", f"{wait}; echo was {code}; exit {code}", timeout_s=TIMEOUT_S
        ): code
        for code in CODES
    }
    for job_id in jobs:
        system.wait_state(job_id, JobState.RUNNING)
    for name in SERVICES:
        system.kill(name)
    launched = {job_id: system.job(job_id).attempts[0].instance_id for job_id in jobs}
    go.touch()
    begun = time.monotonic()

    def all_gone() -> bool:
        return all(one["State"]["Name"] == "terminated" for one in instances(twin.url)[before:])

    system.wait("every machine has ended by itself", all_gone, DEADLINE_S + MARGIN_S)
    print(f"ended {time.monotonic() - begun:.1f} s after the kill; deadline {DEADLINE_S} s")
    ended = instances(twin.url)[before:]
    assert {one["InstanceId"] for one in ended} == set(launched.values())
    # Nobody else was there to end them.
    assert {one["StateReason"]["Code"] for one in ended} == {"Client.InstanceInitiatedShutdown"}
    assert {system.job(job_id).state for job_id in jobs} == {JobState.RUNNING}

    system.start(*SERVICES)
    for job_id, code in jobs.items():
        job = system.wait_closed(job_id)
        assert job.exit_code == code
        assert job.outcome is (Outcome.SUCCEEDED if code == 0 else Outcome.FAILED)
        (attempt,) = job.attempts
        assert attempt.detail == "recovered from the console"
        assert attempt.log_tail == f"was {code}\n".encode()
    audit = audited(system)
    assert audit["in_sync"], audit
    assert audit["counts"]["matched"] == len(jobs)


def audited(system: System) -> Any:
    """What `atemporal audit` says."""
    code = "from atemporal.cli import main; main(prog_name='atemporal')"
    done = subprocess.run(
        [sys.executable, "-c", code, "audit", "-o", "json"],
        env={**os.environ, **system.env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return json.loads(done.stdout)
