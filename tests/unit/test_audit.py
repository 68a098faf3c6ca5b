"""Double entry, case by case: what balances, what is a fault, and what proves nothing yet."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from atemporal.audit import SHOWN_FOR_S, Audit, Row, Settled, Standing, audit
from atemporal.cloud import Instance
from atemporal.model import Attempt, AttemptRef, Launch
from atemporal.states import AttemptState, Reason

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
REF = AttemptRef(UUID("01900000-0000-7000-8000-000000000001"), 1)
GRACE_S, STOP_S, DEADLINE_S = 300, 120, 3600
A, S = AttemptState, Standing
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


def audited(instances: Iterable[Instance], *attempts: Attempt, **more: Any) -> Audit:
    return audit(
        instances,
        attempts,
        installation=OURS,
        now=NOW,
        grace_s=GRACE_S,
        overstay_s=STOP_S,
        **more,
    )


def only_row(found: Audit) -> Row:
    (row,) = found.rows
    return row


@pytest.mark.parametrize("state", [A.WARMING, A.READY, A.RUNNING, A.EXITED])
def test_an_instance_and_its_attempt_balance(state: AttemptState) -> None:
    found = audited([instance()], attempt(state))
    row = only_row(found)
    assert (row.standing, row.ec2_s, row.books_s) == (S.MATCHED, 600, 600)
    assert found.balances


def test_the_seconds_of_one_that_was_ended_stop_at_its_end() -> None:
    ended = instance(state="terminated", ended_at=ago(40))
    row = only_row(audited([ended], attempt(A.CLOSED)))
    assert (row.standing, row.ec2_s, row.books_s) == (S.MATCHED, 560, 570)
    assert row.overstay_s == 20


def test_where_ec2_does_not_say_the_end_the_books_do() -> None:
    row = only_row(audited([instance(state="terminated")], attempt(A.CLOSED)))
    assert (row.standing, row.ec2_s) == (S.MATCHED, 570)


@pytest.mark.parametrize("tags", [{}, {"atemporal:job": "not a uuid", "atemporal:attempt": "1"}])
def test_an_instance_that_names_no_attempt_is_unaccounted_for(tags: dict[str, str]) -> None:
    found = audited([instance(tags=tags)])
    assert only_row(found).standing is S.UNACCOUNTED
    assert not found.balances


@pytest.mark.parametrize("state", ["running", "terminated"])
def test_an_instance_whose_attempt_is_not_in_the_books_is_unaccounted_for(state: str) -> None:
    assert only_row(audited([instance(state=state)])).standing is S.UNACCOUNTED


def test_an_attempt_that_does_not_know_its_instance_does_not_account_for_it() -> None:
    (row,) = audited([instance()], attempt(A.LAUNCHING, None)).rows
    assert row.standing is S.UNACCOUNTED
    assert "no instance written down" in row.why


def test_young_ones_are_shown_and_are_no_fault() -> None:
    for found in (
        audited([instance(age=GRACE_S)]),
        audited([instance(age=GRACE_S)], attempt(A.LAUNCHING, None, age=GRACE_S)),
        audited([], attempt(A.WARMING, age=GRACE_S)),
    ):
        assert [row.standing for row in found.rows] == [S.YOUNG]
        assert found.balances
    assert not audited([instance(age=GRACE_S + 1)]).balances
    assert not audited([], attempt(A.WARMING, age=GRACE_S + 1)).balances


def test_a_second_instance_is_a_fault_however_young_and_also_when_it_is_gone() -> None:
    for second in (instance("i-2", age=1), instance("i-2", state="terminated")):
        found = audited([instance(), second], attempt(A.RUNNING))
        assert [row.standing for row in found.rows] == [S.MATCHED, S.DOUBLED]
        assert not found.balances


@pytest.mark.parametrize("state", [A.WARMING, A.RUNNING, A.EXITED, A.CLOSED])
def test_an_attempt_whose_instance_ec2_should_show_is_a_fault(state: AttemptState) -> None:
    found = audited([], attempt(state))
    assert only_row(found).standing is S.MISSING
    assert (found.ec2_s, found.balances) == (0, False)


def test_what_ec2_has_forgotten_balances_by_the_books_alone() -> None:
    old = attempt(A.CLOSED, age=9000, ended=8000, closed=SHOWN_FOR_S + 1)
    found = audited([], old, settled=Settled(7, 70.0))
    assert only_row(found).standing is S.FORGOTTEN
    assert found.balances
    assert found.settled == Settled(7, 70.0)


def test_an_attempt_that_never_had_an_instance_needs_no_row() -> None:
    assert audited([], attempt(A.LAUNCHING, None), attempt(A.EXITED, None)).rows == ()


def test_an_instance_that_outlives_its_attempt_is_a_fault_beyond_the_allowance() -> None:
    within = audited([instance()], attempt(A.EXITED, ended=STOP_S))
    assert (within.balances, within.worst_overstay_s) == (True, STOP_S)
    beyond = audited([instance()], attempt(A.EXITED, ended=STOP_S + 1))
    assert only_row(beyond).standing is S.OVERSTAYED
    gone = instance(state="terminated", ended_at=ago(10))
    assert only_row(audited([gone], attempt(A.CLOSED, ended=200))).standing is S.OVERSTAYED


def test_one_that_outlives_its_own_deadline_is_a_fault_while_its_attempt_lives() -> None:
    limit = DEADLINE_S + STOP_S
    assert audited([instance(age=limit)], attempt(A.RUNNING, age=limit)).balances
    found = audited([instance(age=limit + 1)], attempt(A.RUNNING, age=limit + 1))
    assert only_row(found).standing is S.OVERSTAYED
    assert "deadline" in only_row(found).why


def test_one_that_powered_itself_off_nobody_knows_when_is_not_accused() -> None:
    late = attempt(A.CLOSED, ended=5000, closed=4, age=6000)
    assert audited([instance(state="terminated", age=6000)], late).balances


def launched_by(installation: UUID, **more: Any) -> Instance:
    tags = {**instance().tags, "atemporal:installation": str(installation)}
    return instance(tags=tags, **more)


@pytest.mark.parametrize("age", [1, 600])
def test_an_instance_of_another_installation_is_a_fault_that_says_what_to_do(age: float) -> None:
    found = audited([launched_by(THEIRS, age=age)])
    assert only_row(found).standing is S.FOREIGN
    assert "another ATEMPORAL_DEPLOYMENT" in only_row(found).why
    assert not found.balances
    assert only_row(audited([launched_by(OURS)])).standing is S.UNACCOUNTED


def test_one_that_is_in_the_books_under_another_name_is_foreign_all_the_same() -> None:
    claimed = attempt(A.RUNNING).model_copy(update={"number": 2})
    row = only_row(audited([launched_by(THEIRS)], claimed))
    assert (row.standing, row.attempt) == (S.FOREIGN, claimed)


def test_what_its_attempt_accounts_for_is_matched_whoever_launched_it() -> None:
    found = audited([launched_by(THEIRS)], attempt(A.RUNNING))
    assert only_row(found).standing is S.MATCHED


def test_every_standing_is_counted() -> None:
    found = audited([instance(), instance("i-2")], attempt(A.RUNNING))
    assert found.counts == {**dict.fromkeys(Standing, 0), S.MATCHED: 1, S.DOUBLED: 1}
