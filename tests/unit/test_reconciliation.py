"""Reconciliation, case by case: what is in sync, what is drift, and what proves nothing yet."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from atemporal.cloud import Instance
from atemporal.fleet.reconciliation import SHOWN_FOR_S, Reconciliation, Row, Status, reconcile
from atemporal.fleet.snapshot import Settled, Snapshot, split_by_owner
from atemporal.model import Attempt, AttemptRef, Launch
from atemporal.states import AttemptState, Reason

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
REF = AttemptRef(UUID("01900000-0000-7000-8000-000000000001"), 1)
NOTHING = Settled()
GRACE_S, STOP_S, DEADLINE_S = 300, 120, 3600
A, S = AttemptState, Status
OURS, THEIRS = (UUID(f"01900000-0000-4000-8000-00000000000{n}") for n in (1, 2))


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def instance(name: str = "i-1", state: str = "running", age: float = 600, **more: Any) -> Instance:
    tags = {"atemporal:job": str(REF.job_id), "atemporal:attempt": str(REF.number)}
    return Instance(id=name, state=state, launched_at=ago(age), **{"tags": tags, **more})


def attempt(
    state: AttemptState,
    instance_id: str | None = "i-1",
    *,
    age: float = 600,
    ended: float = 60,
    closed: float = 30,
) -> Attempt:
    over = state in (A.EXITED, A.CLOSED)
    return Attempt(
        job_id=REF.job_id,
        number=1,
        state=state,
        reason=Reason.COMPLETED if over else None,
        launch=Launch(
            image_id="ami-1",
            instance_type="t3.small",
            callback_base="http://x",
            key_id="k",
            deadline_s=DEADLINE_S,
        ),
        instance_id=instance_id,
        created_at=ago(age),
        launched_at=ago(age) if instance_id else None,
        exited_at=ago(ended) if over else None,
        closed_at=ago(closed) if state is A.CLOSED else None,
    )


def reconciled(
    instances: Iterable[Instance], *attempts: Attempt, settled: Settled = NOTHING
) -> Reconciliation:
    known = {one.ref: one for one in attempts}
    ours, foreign, _ = split_by_owner(instances, known, OURS)
    snapshot = Snapshot(NOW, OURS, known, ours, foreign, settled=settled)
    return reconcile(snapshot, grace_s=GRACE_S, stop_s=STOP_S)


def only_row(found: Reconciliation) -> Row:
    (row,) = found.rows
    return row


@pytest.mark.parametrize("state", [A.WARMING, A.READY, A.RUNNING, A.EXITED])
def test_an_instance_and_its_attempt_are_in_sync(state: AttemptState) -> None:
    found = reconciled([instance()], attempt(state))
    row = only_row(found)
    assert (row.status, row.ec2_s, row.recorded_s) == (S.MATCHED, 600, 600)
    assert found.in_sync


def test_the_seconds_of_one_that_was_ended_stop_at_its_end() -> None:
    ended = instance(state="terminated", ended_at=ago(40))
    row = only_row(reconciled([ended], attempt(A.CLOSED)))
    assert (row.status, row.ec2_s, row.recorded_s) == (S.MATCHED, 560, 570)
    assert row.leak_s == 20


def test_where_ec2_does_not_say_the_end_the_records_do() -> None:
    row = only_row(reconciled([instance(state="terminated")], attempt(A.CLOSED)))
    assert (row.status, row.ec2_s) == (S.MATCHED, 570)


@pytest.mark.parametrize("tags", [{}, {"atemporal:job": "not a uuid", "atemporal:attempt": "1"}])
def test_an_instance_that_names_no_attempt_is_orphaned(tags: dict[str, str]) -> None:
    found = reconciled([instance(tags=tags)])
    assert only_row(found).status is S.ORPHANED
    assert not found.in_sync


@pytest.mark.parametrize("state", ["running", "terminated"])
def test_an_instance_whose_attempt_is_not_recorded_is_orphaned(state: str) -> None:
    assert only_row(reconciled([instance(state=state)])).status is S.ORPHANED


def test_an_instance_that_its_attempt_does_not_know_is_orphaned() -> None:
    (row,) = reconciled([instance()], attempt(A.LAUNCHING, None)).rows
    assert row.status is S.ORPHANED
    assert "no instance written down" in row.why


def test_young_ones_are_shown_and_are_no_drift() -> None:
    for found in (
        reconciled([instance(age=GRACE_S)]),
        reconciled([instance(age=GRACE_S)], attempt(A.LAUNCHING, None, age=GRACE_S)),
        reconciled([], attempt(A.WARMING, age=GRACE_S)),
    ):
        assert [row.status for row in found.rows] == [S.YOUNG]
        assert found.in_sync
    assert not reconciled([instance(age=GRACE_S + 1)]).in_sync
    assert not reconciled([], attempt(A.WARMING, age=GRACE_S + 1)).in_sync


def test_a_second_instance_is_a_duplicate_however_young_and_also_when_it_is_gone() -> None:
    for second in (instance("i-2", age=1), instance("i-2", state="terminated")):
        found = reconciled([instance(), second], attempt(A.RUNNING))
        assert [row.status for row in found.rows] == [S.MATCHED, S.DUPLICATE]
        assert not found.in_sync


@pytest.mark.parametrize("state", [A.WARMING, A.RUNNING, A.EXITED, A.CLOSED])
def test_an_attempt_whose_instance_ec2_should_show_is_missing(state: AttemptState) -> None:
    found = reconciled([], attempt(state))
    assert only_row(found).status is S.MISSING
    assert (found.ec2_s, found.in_sync) == (0, False)


def test_what_ec2_has_forgotten_is_in_sync_by_the_records_alone() -> None:
    old = attempt(A.CLOSED, age=9000, ended=8000, closed=SHOWN_FOR_S + 1)
    found = reconciled([], old, settled=Settled(7, 70.0))
    assert only_row(found).status is S.FORGOTTEN
    assert found.in_sync
    assert found.settled == Settled(7, 70.0)


def test_an_attempt_that_never_had_an_instance_needs_no_row() -> None:
    assert reconciled([], attempt(A.LAUNCHING, None), attempt(A.EXITED, None)).rows == ()


def test_a_run_of_which_ec2_shows_no_instance_is_missing_though_none_was_written_down() -> None:
    def run(seconds: float) -> Attempt:
        return attempt(A.RUNNING, None).model_copy(update={"running_at": ago(seconds)})

    assert only_row(reconciled([], run(GRACE_S + 1))).status is S.MISSING
    assert only_row(reconciled([], run(GRACE_S - 1))).status is S.YOUNG
    by_its_tags = reconciled([instance(age=GRACE_S - 1)], run(GRACE_S + 1))
    assert only_row(by_its_tags).status is S.YOUNG


def test_an_instance_that_came_after_its_attempts_end_outlives_it_from_its_launch_on() -> None:
    over = attempt(A.CLOSED, ended=1000, closed=10)
    short = instance(state="terminated", age=STOP_S + 50, ended_at=ago(60))
    assert only_row(reconciled([short], over)).status is S.MATCHED
    long = instance(state="terminated", age=STOP_S + 70, ended_at=ago(60))
    row = only_row(reconciled([long], over))
    assert (row.status, row.leak_s) == (S.LEAKED, STOP_S + 10)


def test_an_instance_that_outlives_its_attempt_is_leaked_beyond_the_allowance() -> None:
    within = reconciled([instance()], attempt(A.EXITED, ended=STOP_S))
    assert (within.in_sync, within.worst_leak_s) == (True, STOP_S)
    beyond = reconciled([instance()], attempt(A.EXITED, ended=STOP_S + 1))
    assert only_row(beyond).status is S.LEAKED
    gone = instance(state="terminated", ended_at=ago(10))
    assert only_row(reconciled([gone], attempt(A.CLOSED, ended=200))).status is S.LEAKED


def test_one_that_outlives_its_own_deadline_is_leaked_while_its_attempt_lives() -> None:
    limit = DEADLINE_S + STOP_S
    assert reconciled([instance(age=limit)], attempt(A.RUNNING, age=limit)).in_sync
    found = reconciled([instance(age=limit + 1)], attempt(A.RUNNING, age=limit + 1))
    assert only_row(found).status is S.LEAKED
    assert "deadline" in only_row(found).why


def test_one_that_powered_itself_off_nobody_knows_when_is_not_accused() -> None:
    late = attempt(A.CLOSED, ended=5000, closed=4, age=6000)
    assert reconciled([instance(state="terminated", age=6000)], late).in_sync


def launched_by(installation: UUID, **more: Any) -> Instance:
    tags = {**instance().tags, "atemporal:installation": str(installation)}
    return instance(tags=tags, **more)


@pytest.mark.parametrize("age", [1, 600])
def test_an_instance_of_another_installation_is_drift_that_says_what_to_do(age: float) -> None:
    found = reconciled([launched_by(THEIRS, age=age)])
    assert only_row(found).status is S.FOREIGN
    assert "another ATEMPORAL_DEPLOYMENT" in only_row(found).why
    assert not found.in_sync
    assert only_row(reconciled([launched_by(OURS)])).status is S.ORPHANED


def test_one_that_is_recorded_under_another_name_is_foreign_all_the_same() -> None:
    claimed = attempt(A.RUNNING).model_copy(update={"number": 2})
    row = only_row(reconciled([launched_by(THEIRS)], claimed))
    assert (row.status, row.attempt) == (S.FOREIGN, claimed)


def test_what_its_attempt_accounts_for_is_matched_whoever_launched_it() -> None:
    found = reconciled([launched_by(THEIRS)], attempt(A.RUNNING))
    assert only_row(found).status is S.MATCHED


def test_every_status_is_counted() -> None:
    found = reconciled([instance(), instance("i-2")], attempt(A.RUNNING))
    assert found.counts == {**dict.fromkeys(Status, 0), S.MATCHED: 1, S.DUPLICATE: 1}


def test_an_instance_whose_attempt_can_not_be_read_is_shown_as_orphaned() -> None:
    snapshot = Snapshot(NOW, OURS, unreadable=(instance(),))
    assert only_row(reconcile(snapshot, grace_s=GRACE_S, stop_s=STOP_S)).status is S.ORPHANED
