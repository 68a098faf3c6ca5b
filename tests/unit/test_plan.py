"""What is to be done about the fleet, case by case."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from atemporal.cloud import Instance
from atemporal.fleet.absence import is_listing_empty, missing
from atemporal.fleet.ending import TerminationCause
from atemporal.fleet.plan import (
    CLAIM_GRACE_S,
    CONSOLE_S,
    REMEMBERED_S,
    RUN_GRACE_S,
    Close,
    Decision,
    Limits,
    Loss,
    Memory,
    Plan,
    Shortage,
    decide,
)
from atemporal.fleet.snapshot import Snapshot, split_by_owner
from atemporal.model import Attempt, AttemptRef, Launch
from atemporal.states import AttemptState, Reason

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
NOTHING = Memory()
LIMITS = Limits(launch_s=3600, boot_s=1800, pull_s=600, stop_s=120, queue_s=9999, grace_s=300)
REF = AttemptRef(UUID("01900000-0000-7000-8000-000000000001"), 1)
LAUNCH = Launch(
    image_id="ami-1", instance_type="t3.small", callback_base="http://x", key_id="k", deadline_s=9
)
A, T = AttemptState, TerminationCause
OURS, THEIRS = (UUID(f"01900000-0000-4000-8000-00000000000{n}") for n in (1, 2))
# Another attempt's instance: a listing that shows it is not empty of ours.
SIGHT = Instance("i-sight", "running", launched_at=NOW - timedelta(seconds=60))


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def instance(name: str = "i-1", state: str = "running", age: float = 60, **more: Any) -> Instance:
    tags = {"atemporal:job": str(REF.job_id), "atemporal:attempt": str(REF.number)}
    return Instance(id=name, state=state, launched_at=ago(age), **{"tags": tags, **more})


def attempt(
    state: AttemptState, instance_id: str | None = "i-1", age: float = 60, number: int = 1
) -> Attempt:
    return Attempt(
        job_id=REF.job_id,
        number=number,
        state=state,
        launch=LAUNCH,
        instance_id=instance_id,
        created_at=ago(age),
        launched_at=ago(age) if instance_id else None,
        running_at=ago(age) if state is A.RUNNING else None,
        exited_at=ago(age) if state in (A.EXITED, A.CLOSED) else None,
    )


def snapshot(
    instances: Iterable[Instance],
    *attempts: Attempt,
    timeouts: Mapping[AttemptRef, int] | None = None,
    by_id: Iterable[Instance] | None = (),
    slowest_boots: Mapping[tuple[str, str], float] | None = None,
    last_boot_at: datetime | None = NOW,
    whole: bool = True,
) -> Snapshot:
    return Snapshot(
        NOW,
        OURS,
        {one.ref: one for one in attempts},
        tuple(instances),
        timeouts=timeouts or {},
        slowest_boots=slowest_boots or {},
        last_boot_at=last_boot_at,
        whole=whole,
        by_id=None if by_id is None else {one.id: one for one in by_id},
    )


def decided(
    instances: Iterable[Instance],
    *attempts: Attempt,
    memory: Memory = NOTHING,
    **more: Any,
) -> Decision:
    return decide(snapshot(instances, *attempts, **more), LIMITS, memory)


def planned(instances: Iterable[Instance], *attempts: Attempt, **more: Any) -> Plan:
    return decided(instances, *attempts, **more).plan


def in_sight(one: Attempt, **more: Any) -> Decision:
    """Decide about an attempt that is not listed while another attempt's instance is."""
    return decided([SIGHT], one, attempt(A.RUNNING, SIGHT.id, number=9), **more)


def missed(instances: Iterable[Instance], *attempts: Attempt) -> frozenset[AttemptRef]:
    return missing(snapshot(instances, *attempts), LIMITS.grace_s)


def shows_none(instances: Iterable[Instance], *attempts: Attempt) -> bool:
    seen = snapshot(instances, *attempts)
    return is_listing_empty(seen, missing(seen, LIMITS.grace_s))


@pytest.mark.parametrize("state", [A.WARMING, A.READY, A.RUNNING])
def test_what_is_well_is_left_alone(state: AttemptState) -> None:
    found = planned([instance()], attempt(state), timeouts={REF: 3600})
    assert found == Plan()


@pytest.mark.parametrize("state", [A.EXITED, A.CLOSED])
def test_the_instance_of_an_ended_attempt_is_ended(state: AttemptState) -> None:
    assert planned([instance()], attempt(state)).terminate == {"i-1": T.ATTEMPT_ENDED}


def test_an_instance_that_ec2_shows_gone_closes_its_ended_attempt() -> None:
    found = planned([instance(state="terminated")], attempt(A.EXITED))
    assert found == Plan(close={REF: Close("i-1 is terminated")})


def test_a_closed_attempt_is_told_ec2s_code_for_the_end() -> None:
    code = "Server.SpotInstanceTermination"
    found = planned([instance(state="terminated", state_reason=code)], attempt(A.EXITED))
    assert found.close == {REF: Close(f"i-1 is terminated: {code}", code)}


def test_one_that_is_shutting_down_is_not_gone() -> None:
    assert planned([instance(state="shutting-down")], attempt(A.EXITED)).close == {}


@pytest.mark.parametrize("state", [A.WARMING, A.RUNNING])
def test_a_live_attempt_whose_instance_is_gone_is_lost(state: AttemptState) -> None:
    code = "Client.UserInitiatedShutdown"
    found = planned([instance(state="terminated", state_reason=code)], attempt(state))
    assert found.lost == {REF: Loss(Reason.INSTANCE_LOST, False, code)}


@pytest.mark.parametrize(
    "code",
    ["Server.SpotInstanceTermination", "Server.SpotInstanceShutdown", "Client.SpotInstanceX"],
)
def test_a_spot_instance_taken_back_is_no_lost_one(code: str) -> None:
    for state in (A.WARMING, A.RUNNING):
        found = planned([instance(state="terminated", state_reason=code)], attempt(state))
        assert found.lost == {REF: Loss(Reason.SPOT_INTERRUPTED, False, code)}


def test_a_machine_that_gave_up_before_it_booted_has_missed_its_boot_deadline() -> None:
    code = "Client.InstanceInitiatedShutdown"
    gone = [instance(state="terminated", state_reason=code)]
    loss = planned(gone, attempt(A.WARMING)).lost[REF]
    assert (loss.reason, loss.final, loss.end_code) == (Reason.BOOT_DEADLINE, False, code)
    assert "i-1 powered itself off" in (loss.sentence or "")
    for fact in ("booted_at", "ready_at", "running_at"):
        heard = attempt(A.WARMING).model_copy(update={fact: ago(1)})
        assert planned(gone, heard).lost[REF].reason is Reason.INSTANCE_LOST


def test_a_console_without_a_record_is_believed_after_a_while() -> None:
    gone = [instance(state="terminated", state_reason="Client.InstanceInitiatedShutdown")]
    first = decided(gone, attempt(A.RUNNING))
    assert first.memory.gone_since == {REF: NOW}
    for seconds, final in ((CONSOLE_S - 1, False), (CONSOLE_S + 1, True)):
        before = Memory(gone_since={REF: ago(seconds)})
        later = decided(gone, attempt(A.RUNNING), memory=before)
        assert later.plan.lost[REF].final is final
        assert later.memory.gone_since == {REF: ago(seconds)}


@pytest.mark.parametrize("seconds", [117, 160, 204, 240])
def test_a_record_that_ec2_posts_minutes_later_is_still_waited_for(seconds: int) -> None:
    gone = [instance(state="terminated", state_reason="Client.InstanceInitiatedShutdown")]
    before = Memory(gone_since={REF: ago(seconds)})
    assert not decided(gone, attempt(A.RUNNING), memory=before).plan.lost[REF].final


def test_what_is_not_gone_any_more_is_not_remembered() -> None:
    before = Memory(gone_since={REF: ago(60)})
    assert decided([instance()], attempt(A.RUNNING), memory=before) == (Plan(), Memory())


def test_a_check_of_some_attempts_keeps_what_is_remembered_of_the_others() -> None:
    other = AttemptRef(REF.job_id, 2)
    before = Memory(frozenset({"i-9"}), frozenset({other}), True, {other: ago(60)})
    gone = [instance(state="terminated")]
    found = decided(gone, attempt(A.RUNNING), memory=before, whole=False)
    assert list(found.plan.lost) == [REF]
    assert found.memory == replace(before, gone_since={other: ago(60), REF: NOW})


def test_what_was_gone_long_ago_is_forgotten_also_by_a_process_that_never_sweeps() -> None:
    others = {AttemptRef(REF.job_id, n): ago(REMEMBERED_S - 50 + n) for n in range(2, 100)}
    gone = [instance(state="terminated")]
    for state in (A.RUNNING, A.EXITED):
        memory = Memory(gone_since=others)
        after = decided(gone, attempt(state), memory=memory, whole=False).memory
        assert len(after.gone_since.keys() - {REF}) == 49


def test_a_machine_that_never_came_up_has_nothing_to_say() -> None:
    gone = [instance(state="terminated", state_reason="Server.InternalError")]
    assert planned(gone, attempt(A.WARMING)).lost[REF].final
    assert not planned(gone, attempt(A.RUNNING)).lost[REF].final, "its host may have failed later"
    booted = attempt(A.WARMING).model_copy(update={"booted_at": ago(9)})
    assert not planned(gone, booted).lost[REF].final


@pytest.mark.parametrize(
    "code", ["Server.InsufficientInstanceCapacity", "Client.VolumeLimitExceeded"]
)
def test_an_instance_that_ec2_had_no_room_for_is_not_lost(code: str) -> None:
    gone = [instance(state="terminated", state_reason=code)]
    assert planned(gone, attempt(A.WARMING)) == Plan(short={REF: Shortage(code, LIMITS.launch_s)})
    booted = attempt(A.WARMING).model_copy(update={"booted_at": ago(9)})
    for came_up in (booted, attempt(A.RUNNING)):
        found = planned(gone, came_up)
        assert (list(found.lost), found.short) == ([REF], {})


def test_an_address_that_was_not_written_down_is_found() -> None:
    shown = instance(public_dns="ec2-1.example", public_ip="192.0.2.1")
    for state in (A.WARMING, A.RUNNING):
        assert planned([shown], attempt(state)).addresses == {REF: shown}
    known = {"public_dns": "ec2-1.example", "public_ip": "192.0.2.1"}
    assert planned([shown], attempt(A.RUNNING).model_copy(update=known)) == Plan()
    assert planned([instance()], attempt(A.RUNNING).model_copy(update=known)) == Plan()
    assert planned([shown], attempt(A.EXITED)).addresses == {}


def test_absence_of_a_young_instance_proves_nothing() -> None:
    for state in (A.WARMING, A.RUNNING, A.EXITED):
        assert missed([], attempt(state, age=299)) == set()
        assert missed([], attempt(state, age=301)) == {REF}
        assert missed([instance(state="terminated")], attempt(state, age=301)) == set()
    assert missed([], attempt(A.CLOSED, age=301)) == set()
    assert missed([], attempt(A.LAUNCHING, None, age=301)) == set()


@pytest.mark.parametrize("state", [A.WARMING, A.RUNNING, A.EXITED])
def test_absence_of_an_old_instance_proves_nothing_by_itself(state: AttemptState) -> None:
    assert planned([], attempt(state, age=1799)) == Plan()


@pytest.mark.parametrize("state", [A.RUNNING, A.EXITED])
def test_absence_counts_when_seen_twice_and_confirmed_by_the_id(state: AttemptState) -> None:
    gone = attempt(state, age=301)
    first = in_sight(gone)
    assert first == (Plan(), Memory(missing=frozenset({REF})))
    second = in_sight(gone, memory=first.memory).plan
    assert [*second.lost, *second.close] == [REF]
    assert {one.sentence for one in second.lost.values()} <= {"EC2 does not list it any more"}
    assert in_sight(gone, memory=first.memory, by_id=None).plan == Plan(), "EC2 was not asked"
    assert in_sight(gone, memory=first.memory.without_marks()).plan == Plan()
    assert decided([instance()], attempt(A.RUNNING, age=301), memory=first.memory).plan == Plan()


@pytest.mark.parametrize("state", [A.RUNNING, A.EXITED])
def test_an_empty_listing_counts_for_no_absence_also_when_the_next_one_is_not(
    state: AttemptState,
) -> None:
    gone, live = attempt(state, age=301), attempt(A.RUNNING, SIGHT.id, 301, number=9)
    seen = Memory(missing=frozenset({gone.ref, live.ref}))
    empty = decided([], gone, live, memory=seen)
    assert (empty.plan, empty.memory.listing_empty) == (Plan(), True)
    after = decided([SIGHT], gone, live, memory=empty.memory)
    assert (after.plan, after.memory) == (Plan(), Memory(missing=frozenset({REF})))
    last = decided([SIGHT], gone, live, memory=after.memory).plan
    assert [*last.lost, *last.close] == [REF]


def test_some_attempts_alone_prove_no_absence() -> None:
    before = Memory(missing=frozenset({REF}))
    for state in (A.RUNNING, A.EXITED):
        found = decided([], attempt(state, age=301), memory=before, whole=False)
        assert found == (Plan(), before)


def test_an_instance_that_lost_its_tags_lives_and_is_not_ours_to_end() -> None:
    alive = instance(tags={})
    live = planned([], attempt(A.RUNNING, age=301), by_id=[alive])
    assert live == Plan(strays={REF: alive})
    ended = planned([], attempt(A.EXITED, age=301), by_id=[alive])
    assert ended == Plan(leaked={REF}, strays={REF: alive})
    stopped = instance(tags={}, state="stopped")
    found = planned([], attempt(A.RUNNING, age=301), by_id=[stopped])
    assert (list(found.lost), found.terminate) == ([REF], {})


def test_an_instance_that_ended_and_lost_its_tags_is_gone() -> None:
    gone = [instance(tags={}, state="terminated")]
    assert list(planned([], attempt(A.RUNNING, age=301), by_id=gone).lost) == [REF]
    assert list(planned([], attempt(A.EXITED, age=301), by_id=gone).close) == [REF]


def test_one_of_a_group_that_may_still_be_answered_is_not_missed() -> None:
    group = UUID(int=7)
    ended = attempt(A.EXITED, None, age=7200).model_copy(update={"group_id": group})
    seen = snapshot([SIGHT], ended)
    assert missing(seen, LIMITS.grace_s) == {REF}
    assert missing(replace(seen, launching=frozenset({group})), LIMITS.grace_s) == frozenset()


def test_a_missing_instance_does_not_put_off_its_deadline() -> None:
    over = attempt(A.RUNNING, age=100 + RUN_GRACE_S + 301)
    stray = [instance(tags={})]
    found = planned([], over, timeouts={REF: 100}, by_id=stray)
    assert found.overdue == {REF: Reason.TIMED_OUT}


def test_who_is_over_its_time_while_ec2_does_not_know_its_instance_is_lost() -> None:
    over = attempt(A.RUNNING, age=100 + RUN_GRACE_S + 301)
    found = planned([], over, timeouts={REF: 100})
    assert found.overdue == {REF: Reason.INSTANCE_LOST}
    unasked = planned([], over, timeouts={REF: 100}, by_id=None)
    assert unasked == Plan(), "a sweep later it can be asked"


def test_a_listing_without_any_recorded_instance_is_empty() -> None:
    live = attempt(A.RUNNING, age=301)
    other = attempt(A.RUNNING, "i-2", age=301).model_copy(update={"number": 2})
    stranger = instance("i-9", tags={})
    assert shows_none([], live, other)
    assert shows_none([stranger], live, other)
    assert not shows_none([instance("i-2", tags={}), stranger], live, other)
    assert not shows_none([instance("i-1", state="terminated")], live, other)
    assert not shows_none([], attempt(A.RUNNING, age=299)), "none should be there yet"
    assert not shows_none([], attempt(A.EXITED, age=9999)), "EC2 forgets what has ended"


def test_an_intent_that_never_became_an_instance_is_closed_late() -> None:
    assert missed([], attempt(A.EXITED, None, age=299)) == set()
    assert missed([], attempt(A.EXITED, None, age=301)) == {REF}
    assert missed([instance()], attempt(A.EXITED, None, age=301)) == set()
    assert planned([], attempt(A.EXITED, None, age=301)).close == {}
    before = Memory(missing=frozenset({REF}))
    found = planned([], attempt(A.EXITED, None, age=301), memory=before)
    assert list(found.close) == [REF]


def test_an_instance_whose_id_was_never_written_down_is_adopted() -> None:
    found = planned([instance()], attempt(A.LAUNCHING, None))
    assert found.adopt == {REF: instance()}
    assert found.terminate == {}


def test_one_that_ended_before_it_was_written_down_is_adopted_first() -> None:
    found = planned([instance(state="terminated")], attempt(A.LAUNCHING, None))
    assert list(found.adopt) == [REF]
    assert found.lost == {}


def test_a_second_instance_of_an_attempt_is_ended_and_the_first_is_not() -> None:
    found = planned([instance("i-1"), instance("i-2")], attempt(A.RUNNING))
    assert found.terminate == {"i-2": T.DUPLICATE}


def test_an_orphaned_instance_is_marked_then_ended_and_a_young_one_is_spared() -> None:
    old, young = instance("i-old", age=301), instance("i-young", age=299)
    first = decided([old, young])
    assert (first.plan, first.memory.orphaned) == (Plan(orphaned={"i-old"}), frozenset({"i-old"}))
    second = planned([old, young], memory=first.memory)
    assert second.terminate == {"i-old": T.ORPHANED}
    assert planned([old, young], memory=first.memory.without_marks()).terminate == {}
    assert planned([old, young], memory=first.memory, whole=False).terminate == {}


def test_what_an_empty_listing_shows_is_neither_marked_nor_ended() -> None:
    old, live = instance("i-old", age=301, tags={}), attempt(A.RUNNING, age=301)
    found = decided([old], live, memory=Memory(orphaned=frozenset({"i-old"})))
    assert (found.plan.terminate, found.memory.orphaned) == ({}, frozenset())


@pytest.mark.parametrize(
    ("tag", "left_alone"), [(str(THEIRS), True), ("", True), (str(OURS), False), (None, False)]
)
def test_an_orphaned_instance_of_another_installation_is_foreign(
    tag: str | None, left_alone: bool
) -> None:
    one = instance(age=9999)
    if tag is not None:
        one = instance(age=9999, tags={**one.tags, "atemporal:installation": tag})
    ours, foreign, _ = split_by_owner([one], {}, OURS)
    assert (ours, foreign) == (((), (one,)) if left_alone else ((one,), ()))
    nameless = replace(one, tags={n: v for n, v in one.tags.items() if not n.endswith("job")})
    other = attempt(A.LAUNCHING, None)
    assert len(split_by_owner([nameless], {other.ref: other}, OURS).foreign) == left_alone


@pytest.mark.parametrize("state", list(A))
def test_what_an_attempt_accounts_for_is_ours_whoever_launched_it(state: AttemptState) -> None:
    tags = {**instance().tags, "atemporal:installation": str(THEIRS)}
    one = instance(tags=tags)
    known = attempt(state)
    assert split_by_owner([one], {known.ref: known}, OURS) == ((one,), (), ())


def test_an_instance_whose_attempt_can_not_be_read_is_neither_ours_nor_foreign() -> None:
    one = instance(tags={**instance().tags, "atemporal:installation": str(THEIRS)})
    assert split_by_owner([one], {}, OURS, unreadable=[REF]) == ((), (), (one,))


def test_an_instance_without_an_attempts_tags_is_orphaned() -> None:
    assert planned([instance(age=999, tags={"Name": "x"})]).orphaned == {"i-1"}


def test_a_machine_that_never_called_is_ended_at_the_boot_deadline() -> None:
    assert planned([instance()], attempt(A.WARMING, age=1799)).overdue == {}
    found = planned([instance()], attempt(A.WARMING, age=1801))
    assert found.overdue == {REF: Reason.BOOT_DEADLINE}


@pytest.mark.parametrize(
    ("slowest_s", "allowed_s"),
    [(1, 180), (60, 180), (100, 300), (599, 1797), (700, 1800), (9000, 1800)],
)
def test_a_machine_that_never_called_is_ended_sooner_where_boots_are_known_to_be_quick(
    slowest_s: float, allowed_s: float
) -> None:
    known = {(LAUNCH.instance_type, LAUNCH.image_id): slowest_s}
    young, old = (attempt(A.WARMING, age=allowed_s + by) for by in (-1, 1))
    assert planned([instance()], young, slowest_boots=known).overdue == {}
    assert planned([instance()], old, slowest_boots=known).overdue == {REF: Reason.BOOT_DEADLINE}
    for other in (("t3.small", "ami-2"), ("m7i.metal-24xl", "ami-1")):
        assert planned([instance()], old, slowest_boots={other: 1.0}).overdue == (
            {REF: Reason.BOOT_DEADLINE} if allowed_s == LIMITS.boot_s else {}
        )


@pytest.mark.parametrize("heard", [None, 1000, 201])
def test_while_the_api_hears_nobody_no_machine_is_late_by_what_others_took(
    heard: float | None,
) -> None:
    known = {(LAUNCH.instance_type, LAUNCH.image_id): 40.0}
    silent = attempt(A.WARMING, age=200)
    last_boot_at = None if heard is None else ago(heard)
    found = planned([instance()], silent, slowest_boots=known, last_boot_at=last_boot_at)
    assert found.overdue == {}
    found = planned([instance()], silent, slowest_boots=known, last_boot_at=ago(100))
    assert found.overdue == {REF: Reason.BOOT_DEADLINE}


def test_a_pull_has_a_deadline_of_its_own() -> None:
    slow = attempt(A.WARMING, age=1801)
    pulls = slow.model_copy(update={"booted_at": ago(599)})
    assert planned([instance()], pulls).overdue == {}
    hangs = slow.model_copy(update={"booted_at": ago(601)})
    assert planned([instance()], hangs).overdue == {REF: Reason.PULL_DEADLINE}


def test_an_instance_that_does_not_end_is_reported_and_asked_again() -> None:
    found = planned([instance()], attempt(A.EXITED, age=121))
    assert found.leaked == {REF}
    assert list(found.terminate) == ["i-1"]


def test_a_launch_that_never_succeeds_is_given_up() -> None:
    assert planned([], attempt(A.LAUNCHING, None, age=3599)).overdue == {}
    found = planned([], attempt(A.LAUNCHING, None, age=3601))
    assert found.overdue == {REF: Reason.LAUNCH_DEADLINE}


def test_a_run_is_ended_after_its_timeout_and_a_grace() -> None:
    within = attempt(A.RUNNING, age=100 + RUN_GRACE_S - 1)
    assert planned([instance()], within, timeouts={REF: 100}).overdue == {}
    over = attempt(A.RUNNING, age=100 + RUN_GRACE_S + 1)
    assert planned([instance()], over, timeouts={REF: 100}).overdue == {REF: Reason.TIMED_OUT}


def test_an_instance_that_came_with_a_cancel_is_written_down_and_ended() -> None:
    found = planned([instance()], attempt(A.EXITED, None))
    assert found.adopt == {REF: instance()}
    assert list(found.terminate) == ["i-1"]


def test_one_that_came_and_went_with_a_cancel_is_written_down_before_it_is_closed() -> None:
    found = planned([instance(state="terminated")], attempt(A.EXITED, None))
    assert list(found.adopt) == [REF]
    assert found.close == {}


def test_a_stopped_instance_never_runs_its_job_again() -> None:
    found = planned([instance(state="stopped")], attempt(A.RUNNING))
    assert list(found.lost) == [REF]
    assert found.terminate == {"i-1": T.STOPPED}
    assert planned([instance(state="stopping")], attempt(A.RUNNING)).lost == {}


def claimed(state: AttemptState, claim: str, instance_id: str | None = None) -> Attempt:
    """An attempt whose machine said that it is instance `claim`."""
    one = attempt(state, instance_id, age=301)
    return one.model_copy(update={"claimed_instance_id": claim, "running_at": ago(301)})


@pytest.mark.parametrize("claim", ["i-9", "*", "i-1", "localhost"])
@pytest.mark.parametrize("state", [A.RUNNING, A.EXITED])
def test_whatever_a_machine_claims_the_instance_with_the_tags_is_written_down(
    state: AttemptState, claim: str
) -> None:
    found = planned([instance(age=301)], claimed(state, claim))
    assert found.adopt == {REF: instance(age=301)}
    assert (found.lost, found.close) == ({}, {})


def test_of_two_instances_that_of_the_granted_claim_takes_the_others_place() -> None:
    one, two = instance("i-1"), instance("i-2")
    first = planned([one, two], claimed(A.RUNNING, "i-2", "i-1"))
    assert (first.adopt, first.terminate) == ({REF: two}, {})
    dead = instance("i-2", state="terminated")
    assert planned([one, dead], claimed(A.RUNNING, "i-2", "i-1")).adopt == {REF: dead}
    assert planned([one, two], claimed(A.RUNNING, "i-2", "i-2")).terminate == {"i-1": T.DUPLICATE}
    forged = planned([one, two], claimed(A.RUNNING, "i-9", "i-1"))
    assert (forged.adopt, forged.terminate) == ({}, {"i-2": T.DUPLICATE})


def test_a_claimed_id_counts_for_a_lookup_only_with_the_attempts_own_token() -> None:
    run = claimed(A.RUNNING, "i-9")
    seen = Memory(missing=frozenset({REF}))
    for token, found in ((f"{REF.id}.0", True), (f"{REF.id}1.0", False), (None, False)):
        one = instance("i-9", age=301, tags={}, client_token=token)
        plan = in_sight(run, memory=seen, by_id=[one]).plan
        assert plan.adopt == ({REF: one} if found else {})
        assert list(plan.lost) == ([] if found else [REF])
        assert plan.terminate == {}


def test_another_attempts_instance_is_ended_though_a_machine_has_claimed_to_be_it() -> None:
    theirs = attempt(A.EXITED, "i-9", age=301, number=2)
    tags = {"atemporal:job": str(REF.job_id), "atemporal:attempt": "2"}
    one = instance("i-9", age=301, tags=tags)
    found = planned([one], claimed(A.RUNNING, "i-9"), theirs, by_id=[one])
    assert found.terminate == {"i-9": T.ATTEMPT_ENDED}


def test_an_instance_of_an_attempt_that_was_closed_without_one_is_written_down_when_gone() -> None:
    over = attempt(A.CLOSED, None, age=999)
    alive = planned([instance()], over)
    assert (alive.adopt, alive.terminate) == ({}, {"i-1": T.ATTEMPT_ENDED})
    gone = instance(state="terminated")
    assert planned([gone], over) == Plan(adopt={REF: gone})
    assert planned([gone], attempt(A.CLOSED, "i-2", age=999)) == Plan()


class TestReady:
    """A machine that holds has until its time, and a quarter of an hour for its claim."""

    def of(self, **times: datetime) -> Decision:
        held = attempt(A.READY, age=7200).model_copy(update={"booted_at": ago(7100), **times})
        return decide(snapshot([instance(age=7200)], held), LIMITS, NOTHING)

    @pytest.mark.parametrize(
        ("ready_s", "start_s", "late"),
        [
            (7000, -600, False),
            (7000, -1, False),
            (7000, CLAIM_GRACE_S - 1, False),
            (7000, CLAIM_GRACE_S + 1, True),
            # It was late to be ready: its time is over.
            (CLAIM_GRACE_S - 1, 5000, False),
            (CLAIM_GRACE_S + 1, 5000, True),
        ],
    )
    def test_it_is_late_when_it_does_not_claim(
        self, ready_s: float, start_s: float, late: bool
    ) -> None:
        plan, _ = self.of(ready_at=ago(ready_s), start_at=ago(start_s))
        assert plan.overdue == ({REF: Reason.CLAIM_DEADLINE} if late else {})

    def test_one_that_was_due_at_once_has_no_time_to_wait_for(self) -> None:
        assert self.of(ready_at=ago(CLAIM_GRACE_S - 1)).plan.overdue == {}
        assert self.of(ready_at=ago(CLAIM_GRACE_S + 1)).plan.overdue

    def test_one_whose_instance_nobody_named_is_missed(self) -> None:
        held = attempt(A.READY, None, age=7200).model_copy(update={"ready_at": ago(400)})
        assert missing(snapshot([SIGHT], held), LIMITS.grace_s) == {REF}
        young = held.model_copy(update={"ready_at": ago(200)})
        assert missing(snapshot([SIGHT], young), LIMITS.grace_s) == frozenset()
