"""What a sweep concludes, case by case."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from atemporal.cloud import Instance
from atemporal.model import Attempt, AttemptRef, Launch
from atemporal.states import AttemptState, Reason
from services.reaper.judgement import (
    CONSOLE_S,
    NOTHING_ABSENT,
    RUN_GRACE_S,
    Absence,
    Findings,
    Limits,
    Loss,
    apart,
    blind,
    judge,
    missing,
)

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
LIMITS = Limits(launch_s=3600, boot_s=1800, pull_s=600, stop_s=120, queue_s=9999, grace_s=300)
REF = AttemptRef(UUID("01900000-0000-7000-8000-000000000001"), 1)
LAUNCH = Launch(
    image_id="ami-1", instance_type="t3.small", callback_base="http://x", key_id="k", deadline_s=9
)
A = AttemptState
OURS, THEIRS = (UUID(f"01900000-0000-4000-8000-00000000000{n}") for n in (1, 2))


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def instance(name: str = "i-1", state: str = "running", age: float = 60, **more: Any) -> Instance:
    tags = {"atemporal:job": str(REF.job_id), "atemporal:attempt": str(REF.number)}
    return Instance(id=name, state=state, launched_at=ago(age), **{"tags": tags, **more})


def attempt(state: AttemptState, instance_id: str | None = "i-1", age: float = 60) -> Attempt:
    return Attempt(
        job_id=REF.job_id,
        number=1,
        state=state,
        launch=LAUNCH,
        instance_id=instance_id,
        created_at=ago(age),
        launched_at=ago(age) if instance_id else None,
        running_at=ago(age) if state is A.RUNNING else None,
        exited_at=ago(age) if state in (A.EXITED, A.CLOSED) else None,
    )


def judged(
    instances: Iterable[Instance],
    *attempts: Attempt,
    timeouts: Mapping[AttemptRef, int] | None = None,
    unknown_before: set[str] | None = None,
    absence: Absence = NOTHING_ABSENT,
    gone_before: Mapping[AttemptRef, datetime] | None = None,
) -> Findings:
    return judge(
        instances,
        {one.ref: one for one in attempts},
        timeouts=timeouts or {},
        now=NOW,
        limits=LIMITS,
        unknown_before=unknown_before or set(),
        absence=absence,
        gone_before=gone_before,
    )


def missed(instances: Iterable[Instance], *attempts: Attempt) -> set[AttemptRef]:
    return missing(instances, {one.ref: one for one in attempts}, now=NOW, limits=LIMITS)


def sees_nothing(instances: list[Instance], *attempts: Attempt) -> bool:
    return blind(instances, {one.ref: one for one in attempts}, missed(instances, *attempts))


@pytest.mark.parametrize("state", [A.WARMING, A.READY, A.RUNNING])
def test_what_is_well_is_left_alone(state: AttemptState) -> None:
    found = judged([instance()], attempt(state), timeouts={REF: 3600})
    assert found == Findings()


@pytest.mark.parametrize("state", [A.EXITED, A.CLOSED])
def test_the_instance_of_an_ended_attempt_is_ended(state: AttemptState) -> None:
    assert list(judged([instance()], attempt(state)).terminate) == ["i-1"]


def test_an_instance_that_ec2_shows_gone_closes_its_ended_attempt() -> None:
    found = judged([instance(state="terminated")], attempt(A.EXITED))
    assert list(found.close) == [REF]
    assert found.terminate == {}


def test_one_that_is_shutting_down_is_not_gone() -> None:
    assert judged([instance(state="shutting-down")], attempt(A.EXITED)).close == {}


@pytest.mark.parametrize("state", [A.WARMING, A.RUNNING])
def test_a_live_attempt_whose_instance_is_gone_is_lost(state: AttemptState) -> None:
    code = "Client.UserInitiatedShutdown"
    found = judged([instance(state="terminated", state_reason=code)], attempt(state))
    assert found.lost == {REF: Loss(code, code, Reason.INSTANCE_LOST, final=False)}


@pytest.mark.parametrize(
    "code",
    ["Server.SpotInstanceTermination", "Server.SpotInstanceShutdown", "Client.SpotInstanceX"],
)
def test_a_spot_instance_taken_back_is_no_lost_one(code: str) -> None:
    for state in (A.WARMING, A.RUNNING):
        found = judged([instance(state="terminated", state_reason=code)], attempt(state))
        assert found.lost == {REF: Loss(code, code, Reason.SPOT_INTERRUPTED, final=False)}


def test_a_console_without_a_record_is_believed_after_a_while() -> None:
    gone = [instance(state="terminated", state_reason="Client.InstanceInitiatedShutdown")]
    first = judged(gone, attempt(A.RUNNING))
    assert first.gone_since == {REF: NOW}
    for seconds, final in ((CONSOLE_S - 1, False), (CONSOLE_S + 1, True)):
        later = judged(gone, attempt(A.RUNNING), gone_before={REF: ago(seconds)})
        assert later.lost[REF].final is final
        assert later.gone_since == {REF: ago(seconds)}


def test_what_is_not_gone_any_more_is_not_remembered() -> None:
    found = judged([instance()], attempt(A.RUNNING), gone_before={REF: ago(60)})
    assert found == Findings()


def test_a_machine_that_never_came_up_has_nothing_to_say() -> None:
    gone = [instance(state="terminated", state_reason="Server.InternalError")]
    assert judged(gone, attempt(A.WARMING)).lost[REF].final
    assert not judged(gone, attempt(A.RUNNING)).lost[REF].final, "its host may have failed later"
    booted = attempt(A.WARMING).model_copy(update={"booted_at": ago(9)})
    assert not judged(gone, booted).lost[REF].final


@pytest.mark.parametrize(
    "code", ["Server.InsufficientInstanceCapacity", "Client.VolumeLimitExceeded"]
)
def test_an_instance_that_ec2_had_no_room_for_is_not_lost(code: str) -> None:
    gone = [instance(state="terminated", state_reason=code)]
    assert judged(gone, attempt(A.WARMING)) == Findings(scarce={REF: code})
    booted = attempt(A.WARMING).model_copy(update={"booted_at": ago(9)})
    for came_up in (booted, attempt(A.RUNNING)):
        found = judged(gone, came_up)
        assert (list(found.lost), found.scarce) == ([REF], {})


def test_an_address_that_was_not_written_down_is_found() -> None:
    shown = instance(public_dns="ec2-1.example", public_ip="192.0.2.1")
    for state in (A.WARMING, A.RUNNING):
        assert judged([shown], attempt(state)).addresses == {REF: shown}
    known = {"public_dns": "ec2-1.example", "public_ip": "192.0.2.1"}
    assert judged([shown], attempt(A.RUNNING).model_copy(update=known)) == Findings()
    assert judged([instance()], attempt(A.RUNNING).model_copy(update=known)) == Findings()
    assert judged([shown], attempt(A.EXITED)).addresses == {}


def test_absence_of_a_young_instance_proves_nothing() -> None:
    for state in (A.WARMING, A.RUNNING, A.EXITED):
        assert missed([], attempt(state, age=299)) == set()
        assert missed([], attempt(state, age=301)) == {REF}
        assert missed([instance(state="terminated")], attempt(state, age=301)) == set()
    assert missed([], attempt(A.CLOSED, age=301)) == set()
    assert missed([], attempt(A.LAUNCHING, None, age=301)) == set()


@pytest.mark.parametrize("state", [A.WARMING, A.RUNNING, A.EXITED])
def test_absence_of_an_old_instance_proves_nothing_by_itself(state: AttemptState) -> None:
    assert judged([], attempt(state, age=1799)) == Findings()


def test_absence_that_was_looked_into_does() -> None:
    proven = Absence(proven={REF})
    assert list(judged([], attempt(A.RUNNING, age=301), absence=proven).lost) == [REF]
    assert list(judged([], attempt(A.EXITED, age=301), absence=proven).close) == [REF]
    assert judged([instance()], attempt(A.RUNNING, age=301), absence=proven) == Findings()


def test_an_instance_that_lost_its_tags_lives_and_is_not_ours_to_end() -> None:
    alive = Absence(strays={"i-1": instance(tags={})})
    assert judged([], attempt(A.RUNNING, age=301), absence=alive) == Findings()
    ended = judged([], attempt(A.EXITED, age=301), absence=alive)
    assert ended == Findings(overstaying={REF})
    stopped = Absence(strays={"i-1": instance(tags={}, state="stopped")})
    found = judged([], attempt(A.RUNNING, age=301), absence=stopped)
    assert (list(found.lost), found.terminate) == ([REF], {})


def test_an_instance_that_ended_and_lost_its_tags_is_gone() -> None:
    gone = Absence(strays={"i-1": instance(tags={}, state="terminated")})
    assert list(judged([], attempt(A.RUNNING, age=301), absence=gone).lost) == [REF]
    assert list(judged([], attempt(A.EXITED, age=301), absence=gone).close) == [REF]


def test_a_missing_instance_does_not_put_off_its_deadline() -> None:
    over = attempt(A.RUNNING, age=100 + RUN_GRACE_S + 301)
    assert judged([], over, timeouts={REF: 100}).overdue == {REF: Reason.TIMED_OUT}


def test_who_is_over_its_time_while_ec2_does_not_know_its_instance_is_lost() -> None:
    over = attempt(A.RUNNING, age=100 + RUN_GRACE_S + 301)
    found = judged([], over, timeouts={REF: 100}, absence=Absence(unknown={REF}))
    assert found.overdue == {REF: Reason.INSTANCE_LOST}
    unasked = judged([], over, timeouts={REF: 100}, absence=Absence(unasked={REF}))
    assert unasked == Findings(), "a sweep later it can be asked"


def test_a_listing_without_any_instance_of_the_books_is_blind() -> None:
    live = attempt(A.RUNNING, age=301)
    other = attempt(A.RUNNING, "i-2", age=301).model_copy(update={"number": 2})
    stranger = instance("i-9", tags={})
    assert sees_nothing([], live, other)
    assert sees_nothing([stranger], live, other)
    assert not sees_nothing([instance("i-2", tags={}), stranger], live, other)
    assert not sees_nothing([instance("i-1", state="terminated")], live, other)
    assert not sees_nothing([], attempt(A.RUNNING, age=299)), "none should be there yet"
    assert not sees_nothing([], attempt(A.EXITED, age=9999)), "EC2 forgets what has ended"


def test_an_intent_that_never_became_an_instance_is_closed_late() -> None:
    assert missed([], attempt(A.EXITED, None, age=299)) == set()
    assert missed([], attempt(A.EXITED, None, age=301)) == {REF}
    assert missed([instance()], attempt(A.EXITED, None, age=301)) == set()
    assert judged([], attempt(A.EXITED, None, age=301)).close == {}
    proven = Absence(proven={REF})
    assert list(judged([], attempt(A.EXITED, None, age=301), absence=proven).close) == [REF]


def test_an_instance_whose_id_was_never_written_down_is_adopted() -> None:
    found = judged([instance()], attempt(A.LAUNCHING, None))
    assert found.adopt == {REF: instance()}
    assert found.terminate == {}


def test_one_that_ended_before_it_was_written_down_is_adopted_first() -> None:
    found = judged([instance(state="terminated")], attempt(A.LAUNCHING, None))
    assert list(found.adopt) == [REF]
    assert found.lost == {}


def test_a_second_instance_of_an_attempt_is_ended_and_the_first_is_not() -> None:
    found = judged([instance("i-1"), instance("i-2")], attempt(A.RUNNING))
    assert list(found.terminate) == ["i-2"]


def test_an_unknown_instance_is_marked_then_ended_and_a_young_one_is_spared() -> None:
    old, young = instance("i-old", age=301), instance("i-young", age=299)
    first = judged([old, young])
    assert (first.unknown, first.terminate) == ({"i-old"}, {})
    second = judged([old, young], unknown_before=first.unknown)
    assert list(second.terminate) == ["i-old"]


@pytest.mark.parametrize(
    ("tag", "left_alone"), [(str(THEIRS), True), ("", True), (str(OURS), False), (None, False)]
)
def test_an_unknown_instance_of_another_installation_is_set_apart(
    tag: str | None, left_alone: bool
) -> None:
    one = instance(age=9999)
    if tag is not None:
        one = instance(age=9999, tags={**one.tags, "atemporal:installation": tag})
    expected = ([], [one]) if left_alone else ([one], [])
    assert apart([one], {}, OURS) == expected
    nameless = replace(one, tags={n: v for n, v in one.tags.items() if not n.endswith("job")})
    other = attempt(A.LAUNCHING, None)
    assert len(apart([nameless], {other.ref: other}, OURS)[1]) == left_alone


@pytest.mark.parametrize("state", list(A))
def test_what_the_books_account_for_is_judged_whoever_launched_it(state: AttemptState) -> None:
    tags = {**instance().tags, "atemporal:installation": str(THEIRS)}
    one = instance(tags=tags)
    known = attempt(state)
    assert apart([one], {known.ref: known}, OURS) == ([one], [])


def test_an_instance_without_an_attempts_tags_counts_as_unknown() -> None:
    assert judged([instance(age=999, tags={"Name": "x"})]).unknown == {"i-1"}


def test_a_machine_that_never_called_is_ended_at_the_boot_deadline() -> None:
    assert judged([instance()], attempt(A.WARMING, age=1799)).overdue == {}
    found = judged([instance()], attempt(A.WARMING, age=1801))
    assert found.overdue == {REF: Reason.BOOT_DEADLINE}


def test_a_pull_has_a_deadline_of_its_own() -> None:
    slow = attempt(A.WARMING, age=1801)
    pulls = slow.model_copy(update={"booted_at": ago(599)})
    assert judged([instance()], pulls).overdue == {}
    hangs = slow.model_copy(update={"booted_at": ago(601)})
    assert judged([instance()], hangs).overdue == {REF: Reason.PULL_DEADLINE}


def test_an_instance_that_does_not_end_is_reported_and_asked_again() -> None:
    found = judged([instance()], attempt(A.EXITED, age=121))
    assert found.overstaying == {REF}
    assert list(found.terminate) == ["i-1"]


def test_a_launch_that_never_succeeds_is_given_up() -> None:
    assert judged([], attempt(A.LAUNCHING, None, age=3599)).overdue == {}
    found = judged([], attempt(A.LAUNCHING, None, age=3601))
    assert found.overdue == {REF: Reason.LAUNCH_DEADLINE}


def test_a_run_is_ended_after_its_timeout_and_a_grace() -> None:
    within = attempt(A.RUNNING, age=100 + RUN_GRACE_S - 1)
    assert judged([instance()], within, timeouts={REF: 100}).overdue == {}
    over = attempt(A.RUNNING, age=100 + RUN_GRACE_S + 1)
    assert judged([instance()], over, timeouts={REF: 100}).overdue == {REF: Reason.TIMED_OUT}


def test_an_instance_that_came_with_a_cancel_is_written_down_and_ended() -> None:
    found = judged([instance()], attempt(A.EXITED, None))
    assert found.adopt == {REF: instance()}
    assert list(found.terminate) == ["i-1"]


def test_one_that_came_and_went_with_a_cancel_is_written_down_before_it_is_closed() -> None:
    found = judged([instance(state="terminated")], attempt(A.EXITED, None))
    assert list(found.adopt) == [REF]
    assert found.close == {}


def test_a_stopped_instance_never_runs_its_job_again() -> None:
    found = judged([instance(state="stopped")], attempt(A.RUNNING))
    assert list(found.lost) == [REF]
    assert list(found.terminate) == ["i-1"]
    assert judged([instance(state="stopping")], attempt(A.RUNNING)).lost == {}
