"""A database that was dumped is restored, and the daemons go on with it: also with an older state.

As the runbook says it: `pg_dump` while everything runs, `pg_restore` into an empty database, then
`atemporal audit`, and the daemons.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from atemporal.states import JobState, Outcome
from atemporal.store.database import Database
from tests.e2e.system import SERVICES, System, TwinProcess, instances
from tests.servers.postgres import Postgres, find

Restore = Callable[[Path], str]


@pytest.fixture
def own(tmp_path: Path, database_url: str, broker_url: str, twin: TwinProcess) -> Iterator[System]:
    """All services, over a database that this test replaces."""
    system = System(
        tmp_path,
        database_url=database_url,
        broker_url=broker_url,
        ec2_url=twin.url,
        certificates=twin.certificates,
    )
    system.start(*SERVICES)
    yield system
    system.close()


@pytest.fixture
def restore(postgres_server: Postgres) -> Restore:
    """Restores a dump into a new database, and returns its URL."""

    def restored(dump: Path) -> str:
        url = postgres_server.create_database()
        _postgres("pg_restore", "--no-owner", "--exit-on-error", f"--dbname={url}", str(dump))
        return url

    return restored


def _postgres(program: str, *words: str) -> None:
    folder = find()
    assert folder is not None, f"no Postgres with {program} here"
    done = subprocess.run([folder / program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _dump(url: str, to: Path) -> Path:
    _postgres("pg_dump", "--format=custom", f"--file={to}", f"--dbname={url}")
    return to


def _audit(system: System, url: str) -> Any:
    """What `atemporal audit` says of EC2 beside the records of this database."""
    code = "from atemporal.cli import main; main(prog_name='atemporal')"
    done = subprocess.run(
        [sys.executable, "-c", code, "audit", "--history", "-o", "json"],
        env={**system.env, "ATEMPORAL_DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout)
    assert found["in_sync"] is (done.returncode == 0)
    return found


def _now(system: System, job: UUID) -> None:
    """Give a job the present as its time."""
    answer = httpx.patch(f"{system.api_url}/jobs/{job}", json={"delay_s": 0}, timeout=20)
    assert answer.is_success, answer.text


def _orphaned(system: System, url: str) -> list[str]:
    """The instances that no attempt of this database accounts for."""
    rows = _audit(system, url)["rows"]
    return [row["instance"] for row in rows if row["status"] == "orphaned"]


def _state(twin: TwinProcess, instance: str) -> str:
    """What EC2 shows of an instance."""
    (found,) = [one for one in instances(twin.url) if one["InstanceId"] == instance]
    return str(found["State"]["Name"])


def test_a_restored_database_is_in_sync_and_an_older_one_is_made_so(
    own: System, twin: TwinProcess, restore: Restore, tmp_path: Path
) -> None:
    database_url = own.env["ATEMPORAL_DATABASE_URL"]
    may_end = tmp_path / "may-end"
    until = f"until [ -e {may_end} ]; do sleep 0.2; done"
    done = own.submit("true")
    own.wait_closed(done)
    through = own.submit("sh", "-c", until)
    own.wait_state(through, JobState.RUNNING)
    twice = own.submit("true", delay_s=3600)

    older = _dump(database_url, tmp_path / "older.dump")
    _now(own, twice)
    first = own.wait_closed(twice).attempts[0].instance_id
    unknown = own.submit("sleep", "600")
    instance = own.wait_state(unknown, JobState.RUNNING).attempts[0].instance_id
    assert instance is not None
    for name in SERVICES:
        own.stop(name)

    latest = restore(_dump(database_url, tmp_path / "latest.dump"))
    assert _audit(own, latest)["in_sync"], "a dump of now is what is there"

    url = restore(older)
    own.wait(
        "the audit sees the instance that the older records do not know",
        lambda: instance in _orphaned(own, url),
    )
    own.env["ATEMPORAL_DATABASE_URL"] = url
    own.database.dispose()
    own.database = Database(url)
    own.start(*SERVICES)
    own.wait("it is ended", lambda: _state(twin, instance) == "terminated")
    # What ran at the dump and still runs is not disturbed.
    assert own.job(through).state is JobState.RUNNING
    may_end.touch()
    assert [one.outcome for one in (own.wait_closed(through), own.wait_closed(done))] == [
        Outcome.SUCCEEDED,
        Outcome.SUCCEEDED,
    ]
    assert len(own.job(through).attempts) == 1
    # What ran after it has not run, by these records. It is the same attempt, so EC2 gives no second
    # instance for it but shows the first, whose console still says how it ended.
    assert own.job(twice).state is JobState.SCHEDULED
    _now(own, twice)
    again = own.wait_closed(twice)
    assert again.outcome is Outcome.SUCCEEDED
    assert [one.instance_id for one in again.attempts] == [first]
    # EC2 shows an instance that has ended for about an hour, and so long it is told.
    own.wait("nothing else is told", lambda: _orphaned(own, url) == [instance])
    left = _audit(own, url)
    assert [row["instance"] for row in left["rows"] if row["drift"]] == [instance]
