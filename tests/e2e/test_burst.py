"""Jobs that are due at one moment: one call for many machines, and each job exactly one of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import pytest

from atemporal.model import Job
from atemporal.states import Outcome
from tests.e2e.system import System, TwinProcess, instances

MANY = 12
LINGERS_S = 20.0


@pytest.fixture
def before(twin: TwinProcess) -> Iterator[int]:
    """How many instances there were; afterwards the weather is fair."""
    yield len(instances(twin.url))
    httpx.delete(f"{twin.url}/_twin/faults").raise_for_status()


def inject(twin: TwinProcess, kind: str, **fields: Any) -> None:
    fault = {"kind": kind, "times": 1, **fields}
    httpx.post(f"{twin.url}/_twin/faults", json=fault).raise_for_status()


def burst(system: System) -> list[UUID]:
    """Submit jobs that are due at the same moment, in a second."""
    line = {"image": "busybox:1.36", "command": ["true"], "ports": [], "delay_s": 1, "lead": 0}
    lines = "".join(f"{json.dumps(line)}\n" for _ in range(MANY))
    headers = {"Content-Type": "application/x-ndjson"}
    answer = httpx.post(f"{system.api_url}/jobs:batch", content=lines, headers=headers, timeout=20)
    assert answer.status_code == 200, answer.text
    return [UUID(json.loads(result)["id"]) for result in answer.text.splitlines()]


def launched(twin: TwinProcess, before: int) -> list[str]:
    return [one["InstanceId"] for one in instances(twin.url)[before:]]


def calls(twin: TwinProcess) -> list[dict[str, Any]]:
    found = httpx.get(f"{twin.url}/_twin/calls").json()["calls"]
    return [call for call in found if call["action"] == "RunInstances"]


def closed(system: System, ids: list[UUID]) -> list[Job]:
    return [system.wait_closed(job_id) for job_id in ids]


def test_one_call_launches_all(system: System, twin: TwinProcess, before: int) -> None:
    asked = len(calls(twin))
    ended = closed(system, burst(system))
    assert {job.outcome for job in ended} == {Outcome.SUCCEEDED}
    assert len(launched(twin, before)) == MANY
    # The scheduler may send them in two parts.
    assert len(calls(twin)) - asked <= 2
    found = {one["InstanceId"]: one for one in instances(twin.url)[before:]}
    for job in ended:
        (attempt,) = job.attempts
        assert attempt.instance_id is not None
        tags = {tag["Key"]: tag["Value"] for tag in found[attempt.instance_id]["Tags"]}
        assert tags["atemporal:job"] == str(job.id)


@pytest.mark.parametrize("refusal", ["partial-launch", "quota"])
def test_a_launcher_is_killed_in_the_middle_and_half_is_refused(
    system: System, twin: TwinProcess, before: int, refusal: str
) -> None:
    inject(twin, refusal, call="RunInstances")
    # The next call is done, and its launcher dies before it hears of it.
    inject(twin, "timeout-after", call="RunInstances", seconds=LINGERS_S)
    ids = burst(system)
    system.wait("some machines are launched", lambda: len(launched(twin, before)) > 0)
    system.kill("launcher")
    system.start("launcher")
    ended = closed(system, ids)
    assert Counter(job.outcome for job in ended) == {Outcome.SUCCEEDED: MANY}
    assert Counter(job.attempt for job in ended) == {1: MANY}
    ids_of_jobs = [job.attempts[0].instance_id for job in ended]
    assert len(set(ids_of_jobs)) == MANY
    assert sorted(launched(twin, before)) == sorted(one for one in ids_of_jobs if one)
    states = {one["State"]["Name"] for one in instances(twin.url)[before:]}
    assert states == {"terminated"}


def test_a_machine_whose_document_names_another_instance_runs_nothing(
    system: System, twin: TwinProcess, before: int
) -> None:
    inject(twin, "false-identity")
    ended = closed(system, burst(system))
    assert Counter(job.outcome for job in ended) == {Outcome.SUCCEEDED: MANY}
    (cheated,) = [job for job in ended if len(job.attempts) > 1]
    refused, ran = cheated.attempts
    assert (refused.started_at, refused.exit_code) == (None, None)
    assert refused.instance_id != ran.instance_id
    assert len(launched(twin, before)) == MANY + 1
