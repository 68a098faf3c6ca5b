"""The reaper's sweep on a real Postgres: what it decides late does no harm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

import services.reaper.reaper
from atemporal.cloud import Instance
from atemporal.cloud.instance import ATTEMPT_TAG, JOB_TAG
from atemporal.fleet.plan import Decision, Limits, Memory, Plan, decide
from atemporal.fleet.snapshot import Snapshot
from atemporal.model import AttemptRef, parse_spec
from atemporal.states import AttemptState, Reason
from atemporal.store import attempts, jobs, launches
from atemporal.store.database import Database
from services.reaper.reaper import Reaper
from services.reaper.sweep import SweepLoop
from tests.claims import claim_due
from tests.launches import LAUNCH

INSTANCE = "i-0123456789abcdef0"


class Cloud:
    """A listing, and a memory of what was terminated."""

    def __init__(self, list_: Callable[[], list[Instance]]) -> None:
        self.all = list_
        self.terminated: list[str] = []
        self.consoles: dict[str, Exception] = {}

    def terminate(self, ids: list[str], **_: bool) -> dict[str, Any]:
        self.terminated += ids
        return {}

    def describe(self, _ids: list[str], **_: Any) -> dict[str, Instance]:
        return {}

    def console(self, instance_id: str) -> str:
        if instance_id in self.consoles:
            raise self.consoles[instance_id]
        return ""


@pytest.fixture
def ref(database: Database) -> Iterator[AttemptRef]:
    """An attempt whose instance has been warming for an hour."""
    with database.begin() as tx:
        job_id: UUID = jobs.submit_one(tx, parse_spec({"image": "busybox"}), actor="t").job_id
        ref = AttemptRef(job_id, 1)
        claim_due(tx, 1, actor="t")
        launches.begin(tx, ref, LAUNCH, actor="t")
        attempts.launched(tx, ref, INSTANCE, actor="t")
        tx.execute(text("UPDATE attempts SET launched_at = now() - interval '1 h'"))
    yield ref
    with database.begin() as tx:
        tx.execute(text("TRUNCATE jobs, attempts, events"))


def sweep(database: Database, cloud: Any, *, grace_s: float = 300) -> None:
    limits = Limits(
        launch_s=3600, boot_s=1800, pull_s=1800, stop_s=300, queue_s=86_400, grace_s=grace_s
    )
    SweepLoop(Reaper(database, cloud), database, limits=limits, interval_s=1).tick()


def claim(database: Database, ref: AttemptRef) -> None:
    with database.begin() as tx:
        attempts.claim(tx, ref, claim_id="c", instance_id=INSTANCE, actor="t")


@pytest.mark.parametrize(
    "reason", [Reason.LAUNCH_REFUSED, Reason.LAUNCH_DEADLINE, Reason.BOOT_DEADLINE]
)
def test_what_runs_does_not_end_for_never_having_run(
    database: Database, ref: AttemptRef, reason: Reason
) -> None:
    claim(database, ref)
    with database.begin() as tx:
        assert not attempts.end(tx, ref, reason, actor="t")
        found = attempts.get(tx, ref)
    assert found is not None
    assert found.state is AttemptState.RUNNING


def test_a_machine_that_claims_while_it_is_found_late_is_left_alone(
    database: Database, ref: AttemptRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = {JOB_TAG: str(ref.job_id), ATTEMPT_TAG: "1"}
    cloud = Cloud(lambda: [Instance(INSTANCE, "running", tags=tags)])

    def decide_slowly(snapshot: Snapshot, limits: Limits, memory: Memory) -> Decision:
        found = decide(snapshot, limits, memory)
        assert found.plan.overdue == {ref: Reason.BOOT_DEADLINE}
        claim(database, ref)
        return found

    monkeypatch.setattr(services.reaper.reaper, "decide", decide_slowly)
    sweep(database, cloud)
    with database.begin() as tx:
        found = attempts.get(tx, ref)
    assert found is not None
    assert found.state is AttemptState.RUNNING
    assert cloud.terminated == []


def test_ages_are_reckoned_by_the_time_of_the_listing(
    database: Database, ref: AttemptRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[datetime] = []
    decided: list[datetime] = []

    def listing() -> list[Instance]:
        listed.append(datetime.now(UTC))
        return []

    def decide_when(snapshot: Snapshot, _: Limits, memory: Memory) -> Decision:
        decided.append(snapshot.now)
        return Decision(Plan(), memory)

    monkeypatch.setattr(services.reaper.reaper, "decide", decide_when)
    sweep(database, Cloud(listing))
    assert decided[0] <= listed[0]
