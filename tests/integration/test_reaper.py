"""The real reaper over Postgres and a twin: what it ends, and what it never touches."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError
from prometheus_client import REGISTRY
from sqlalchemy import text

from atemporal.cloud import (
    CloudError,
    Instance,
    NoInstance,
    Rejected,
    Throttled,
    Unauthorized,
    Unreachable,
    Volume,
)
from atemporal.errors import Unavailable
from atemporal.fleet.ending import TerminationCause
from atemporal.model import AttemptRef, ExitRecord
from atemporal.states import AttemptState, JobState, Outcome, Reason
from atemporal.store import attempts, boot_times, jobs
from atemporal.store.invariants import violations
from services.reaper.auditor import AuditLoop
from services.reaper.consoles import PAUSE_S
from services.reaper.sweep import LAST_SWEEP
from services.reaper.volumes import VolumeLoop
from tests.integration.reaping import DEPLOYMENT, ENDED, LAUNCH, NOBODY, World, limits, tags_of


def foreigners(world: World, ref: AttemptRef) -> list[str]:
    """Instances of others, made as much like ours as can be: their job tags name an ended attempt."""
    named = tags_of(ref)
    del named["atemporal:deployment"]
    return [
        world.foreign({}),
        world.foreign({"Name": "database"}),
        world.foreign(named),
        world.foreign(tags_of(ref, "theirs")),
        world.foreign(tags_of(ref, "ours-too")),
        world.foreign(tags_of(ref, "OURS")),
        world.foreign(tags_of(ref, "*")),
        world.foreign({**named, "Atemporal:Deployment": DEPLOYMENT}),
    ]


def test_instances_of_others_are_never_touched(world: World) -> None:
    ref, mine = world.launch()
    theirs = foreigners(world, ref)
    world.cancel(ref)
    sweep = world.sweep()
    for _ in range(3):
        sweep.tick()
        world.reaper.end_instances_of([ref])
    states = world.states()
    assert states[mine] in ENDED
    assert {states[one] for one in theirs} == {"pending"}


def test_an_instance_of_others_that_a_machine_claimed_to_be_is_not_ended(world: World) -> None:
    ref = world.begin()
    (theirs, *_) = foreigners(world, ref)
    with world.database.begin() as tx:
        attempts.claim(tx, ref, claim_id="c", instance_id=theirs, actor="test")
    world.cancel(ref)
    world.reaper.end_instances_of([ref])
    world.reaper.check([ref], world.limits)
    sweep = world.sweep()
    sweep.tick()
    sweep.tick()
    assert world.states()[theirs] == "pending"


@pytest.mark.parametrize("wrong", [{"atemporal:job": "mine"}, {"atemporal:attempt": "first"}])
def test_one_of_ours_that_names_no_attempt_is_marked_first_and_ended_later(
    world: World, wrong: dict[str, str]
) -> None:
    odd = world.foreign({**tags_of(AttemptRef(uuid4(), 1)), **wrong})
    sweep = world.sweep()
    sweep.tick()
    assert world.states()[odd] == "pending"
    sweep.reset()
    sweep.tick()
    assert world.states()[odd] == "pending", "the mark did not survive a failed tick"
    sweep.tick()
    assert world.states()[odd] in ENDED


def foreign_gauge() -> float | None:
    return REGISTRY.get_sample_value("atemporal_foreign_instances")


class TestAnotherInstallation:
    """Somebody else uses our deployment's name, or this is not the database of what is there."""

    def test_its_instances_survive_and_ours_that_nobody_knows_end(
        self, world: World, capfd: pytest.CaptureFixture[str]
    ) -> None:
        nobodys = AttemptRef(uuid4(), 1)
        _, known = world.launch()
        theirs = world.foreign(tags_of(nobodys, installation=uuid4()))
        ours = world.foreign(tags_of(nobodys, installation=world.identity()))
        old = world.foreign(tags_of(nobodys))
        sweep = world.sweep()
        for _ in range(4):
            sweep.tick()
        states = world.states()
        assert (states[theirs], states[known]) == ("pending", "pending")
        assert {states[ours], states[old]} <= set(ENDED)
        assert foreign_gauge() == 1
        logged = "".join(capfd.readouterr())
        assert theirs in logged
        assert "give one of them another ATEMPORAL_DEPLOYMENT" in logged
        world.ec2.terminate_instances(InstanceIds=[theirs])
        world.wait_gone(theirs)
        sweep.tick()
        assert foreign_gauge() == 0

    def test_an_empty_database_ends_none_of_the_instances_it_is_shown(self, world: World) -> None:
        another = uuid4()
        theirs = [
            world.foreign(tags_of(AttemptRef(uuid4(), number), installation=another))
            for number in range(1, 9)
        ]
        sweep = world.sweep()
        for _ in range(4):
            sweep.tick()
        assert world.states() == dict.fromkeys(theirs, "pending")
        assert foreign_gauge() == 8

    def test_a_machine_that_claims_to_be_one_of_them_does_not_end_it(self, world: World) -> None:
        theirs = world.foreign(tags_of(AttemptRef(uuid4(), 1), installation=uuid4()))
        ref = world.begin()
        with world.database.begin() as tx:
            attempts.claim(tx, ref, claim_id="c", instance_id=theirs, actor="test")
        world.reaper.check([ref], world.limits)
        world.cancel(ref)
        world.reaper.end_instances_of([ref])
        world.reaper.check([ref], world.limits)
        sweep = world.sweep()
        for _ in range(3):
            sweep.tick()
        assert world.states()[theirs] == "pending"


def test_a_young_instance_that_nobody_knows_is_not_even_marked(world: World) -> None:
    world.limits = limits(grace_s=60)
    odd = world.foreign(tags_of(AttemptRef(uuid4(), 1)))
    sweep = world.sweep()
    for _ in range(3):
        sweep.tick()
    assert world.states()[odd] == "pending"


def test_that_ec2_does_not_know_a_young_instance_proves_nothing(world: World) -> None:
    world.limits = limits(grace_s=60)
    # One that is shown, so that the listing is not taken for one of another place.
    world.launch()
    live, ended = world.begin(), world.begin()
    world.write_down(live, NOBODY)
    world.write_down(ended, "i-0123456789abcdef1")
    world.cancel(ended)
    assert isinstance(world.cloud.terminate([NOBODY])[NOBODY], NoInstance)
    sweep = world.sweep()
    sweep.tick()
    world.reaper.check([live, ended], world.limits)
    sweep.tick()
    assert world.attempt(live).state is AttemptState.WARMING
    assert world.attempt(ended).state is AttemptState.EXITED


def test_of_fifty_with_one_bad_id_forty_nine_end(world: World) -> None:
    answer = world.ec2.run_instances(
        ImageId="ami-12345678", InstanceType="t3.small", MinCount=49, MaxCount=49
    )
    ids = [one["InstanceId"] for one in answer["Instances"]]
    before = terminations("failed")
    world.reaper.terminate(
        dict.fromkeys([*ids[:20], NOBODY, *ids[20:]], TerminationCause.ATTEMPT_ENDED)
    )
    states = world.states()
    assert [states[one] in ENDED for one in ids] == [True] * 49
    assert terminations("failed") - before == 1


class Policy:
    """EC2 behind a policy that denies to end some instances: the whole call fails with one of them."""

    def __init__(self, world: World, patch: pytest.MonkeyPatch, *denied: str) -> None:
        """Stand in for TerminateInstances."""
        self.calls = 0
        self._denied = set(denied)
        self._end = world.cloud._ec2.terminate_instances
        patch.setattr(world.cloud._ec2, "terminate_instances", self)

    def __call__(self, *, InstanceIds: list[str]) -> Any:
        """End all of them or none."""
        self.calls += 1
        if self._denied & set(InstanceIds):
            answer: Any = {
                "Error": {"Code": "UnauthorizedOperation", "Message": "explicit deny"},
                "ResponseMetadata": {"HTTPStatusCode": 403},
            }
            raise ClientError(answer, "TerminateInstances")
        return self._end(InstanceIds=InstanceIds)


class TestDenied:
    """A policy may deny one id; EC2 then refuses the whole call."""

    def launch(self, world: World, count: int) -> list[str]:
        answer = world.ec2.run_instances(
            ImageId="ami-12345678", InstanceType="t3.small", MinCount=count, MaxCount=count
        )
        return [one["InstanceId"] for one in answer["Instances"]]

    def test_of_fifty_with_one_denied_id_forty_nine_end(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("atemporal.cloud.termination.TERMINATE_BATCH", 25)
        ids = self.launch(world, 50)
        policy = Policy(world, monkeypatch, ids[3])
        failures = world.cloud.terminate(ids)
        assert list(failures) == [ids[3]]
        assert isinstance(failures[ids[3]], Unauthorized)
        states = world.states()
        assert [one for one in ids if states[one] not in ENDED] == [ids[3]]
        assert policy.calls < 20

    def test_without_the_right_each_batch_is_tried_and_few_are_halved(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ids = [f"i-{number:017x}" for number in range(6000)]
        policy = Policy(world, monkeypatch, *ids)
        assert world.cloud.terminate(ids).keys() == set(ids)
        assert policy.calls <= 60 + 2 * 20


def terminations(result: str) -> float:
    labels = {"cause": TerminationCause.ATTEMPT_ENDED.value, "result": result}
    return REGISTRY.get_sample_value("atemporal_terminations_total", labels) or 0.0


def test_an_instance_that_came_with_a_cancel_is_recorded_and_ends(world: World) -> None:
    ref = world.begin()
    instance = world.cloud.run(ref, world.attempt(ref).launch, b"#!/bin/true\n")
    world.cancel(ref)
    sweep = world.sweep()
    sweep.tick()
    assert world.attempt(ref).instance_id == instance.id
    world.wait_gone(instance.id)
    sweep.tick()
    assert world.attempt(ref).state is AttemptState.CLOSED
    audited(world)
    assert (rows("matched"), rows("orphaned")) == (1, 0)


@pytest.mark.parametrize(
    "code", ["Server.InsufficientInstanceCapacity", "Client.VolumeLimitExceeded"]
)
def test_an_instance_that_found_no_room_costs_no_budget_before_the_launch_deadline(
    world: World, code: str
) -> None:
    world.limits = limits(launch_s=3600)
    ref = world.begin(infra_retries=0, backoff_s=0)
    for number in range(1, 6):
        ref = AttemptRef(ref.job_id, number)
        if number > 1:
            world.begin_again(ref)
        mine = world.cloud.run(ref, LAUNCH, b"#!/bin/true\n").id
        world.write_down(ref, mine)
        world.change(mine, state="terminated", state_reason=(code, "no room"))
        if number == 5:
            with world.database.begin() as tx:
                tx.execute(text("UPDATE attempts SET created_at = now() - interval '1 hour'"))
        world.sweep().tick()
        assert (world.attempt(ref).reason, world.attempt(ref).detail) == (Reason.NO_CAPACITY, code)
        with world.database.begin() as tx:
            job = jobs.get(tx, ref.job_id)
            # The test does not wait for its backoff.
            broken = {one.invariant.name for one in violations(tx)}
            assert broken <= {"not_before_its_backoff"}
        over = number == 5
        assert job.state is (JobState.FINISHED if over else JobState.SCHEDULED)
        assert job.outcome is (Outcome.FAILED if over else None)
    # An operator's retry begins anew, with the budgets of the beginning.
    with world.database.begin() as tx:
        jobs.retry(tx, ref.job_id, actor="test")
    again = AttemptRef(ref.job_id, 6)
    world.begin_again(again)
    with world.database.begin() as tx:
        attempts.end(tx, again, Reason.BOOT_DEADLINE, actor="test")
        assert jobs.get(tx, ref.job_id).state is JobState.FINISHED


def test_a_stopped_instance_ends_and_its_attempt_with_it(world: World) -> None:
    ref, mine = world.launch()
    world.change(mine, state="stopped")
    world.sweep().tick()
    assert world.attempt(ref).reason is Reason.INSTANCE_LOST
    world.wait_gone(mine)


def test_a_spot_instance_that_was_taken_back_is_told_from_a_lost_one(world: World) -> None:
    ref, mine = world.launch()
    code = "Server.SpotInstanceTermination"
    world.change(mine, state="terminated", state_reason=(code, f"{code}: taken back"))
    world.sweep().tick()
    assert world.attempt(ref).reason is Reason.SPOT_INTERRUPTED


def test_a_machine_that_reported_before_ec2_did_is_recorded_as_taken_back(world: World) -> None:
    ref, mine = world.launch()
    with world.database.begin() as tx:
        stopped = ExitRecord(exit_code=143, stopped=True, claim="c")
        assert attempts.end(tx, ref, stopped.reason, actor="machine", exit_record=stopped)
    code = "Server.SpotInstanceTermination"
    world.change(mine, state="terminated", state_reason=(code, f"{code}: taken back"))
    world.sweep().tick()
    attempt = world.attempt(ref)
    assert (attempt.state, attempt.reason) == (AttemptState.CLOSED, Reason.INSTANCE_LOST)
    assert attempt.detail == f"{mine} is terminated: {code}"


class TestAbsence:
    """A listing goes by tags, so what it does not show may run all the same."""

    def let_it_show(self, world: World, patch: pytest.MonkeyPatch, shown: list[Instance]) -> None:
        """Let the listing show only these, as with a wrong region or lost tags."""
        patch.setattr(world.cloud, "all", lambda: shown)

    def test_a_listing_without_any_of_ours_ends_nothing(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, one = world.launch()
        ended, two = world.launch()
        world.cancel(ended)
        stranger = world.foreign(tags_of(AttemptRef(uuid4(), 1)))
        (listed,) = (i for i in world.cloud.all() if i.id == stranger)
        sweep = world.sweep()
        with monkeypatch.context() as patch:
            self.let_it_show(world, patch, [listed])
            patch.setattr(world.cloud, "describe", lambda _ids, **_: {})
            for _ in range(4):
                sweep.tick()
            assert world.attempt(first).state is AttemptState.WARMING
            assert world.attempt(ended).state is AttemptState.EXITED
            assert world.states() == dict.fromkeys((one, two, stranger), "pending")
            assert REGISTRY.get_sample_value("atemporal_listing_empty") == 1
        sweep.tick()
        assert REGISTRY.get_sample_value("atemporal_listing_empty") == 0
        assert world.attempt(first).state is AttemptState.WARMING
        assert world.states()[two] in ENDED

    def test_one_that_ec2_shows_ended_by_its_id_is_gone_also_while_the_listing_is_empty(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        live, mine = run(world)
        vanish(world, mine)
        world.change(mine, tags={})
        sweep = world.sweep()
        self.let_it_show(world, monkeypatch, [])
        sweep.tick()
        assert REGISTRY.get_sample_value("atemporal_listing_empty") == 1
        assert world.attempt(live).reason is Reason.INSTANCE_LOST

    def test_who_runs_over_while_ec2_does_not_know_its_instance_is_lost(
        self, world: World
    ) -> None:
        ref = world.begin(timeout_s=60)
        with world.database.begin() as tx:
            attempts.claim(tx, ref, claim_id="c", instance_id=NOBODY, actor="test")
        sweep = world.sweep()
        for _ in range(3):
            sweep.tick()
        assert REGISTRY.get_sample_value("atemporal_listing_empty") == 1
        assert world.attempt(ref).state is AttemptState.RUNNING
        with world.database.begin() as tx:
            tx.execute(text("UPDATE attempts SET running_at = now() - interval '1 hour'"))
        sweep.tick()
        assert world.attempt(ref).reason is Reason.INSTANCE_LOST

    def test_what_an_empty_listing_did_not_show_is_looked_for_twice_more(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, shown = world.launch()
        live = world.begin()
        world.write_down(live, NOBODY)
        sweep = world.sweep()
        with monkeypatch.context() as patch:
            self.let_it_show(world, patch, [])
            sweep.tick()
        sweep.tick()
        assert world.attempt(live).state is AttemptState.WARMING
        sweep.tick()
        assert world.attempt(live).reason is Reason.INSTANCE_LOST
        assert world.states()[shown] == "pending"

    def test_one_that_lost_its_tags_lives_and_is_looked_up_by_its_id(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        live, mine = world.launch()
        ended, over = world.launch()
        bystander, shown = world.launch()
        world.cancel(ended)
        for one in (mine, over):
            world.change(one, tags={"atemporal:job": str(live.job_id)})
        assert [one.id for one in world.cloud.all()] == [shown]
        sweep = world.sweep()
        for _ in range(4):
            sweep.tick()
        assert world.attempt(live).state is AttemptState.WARMING
        assert world.attempt(ended).state is AttemptState.EXITED
        world.ec2.terminate_instances(InstanceIds=[mine, over])
        world.wait_gone(mine, over)
        sweep.tick()
        assert world.attempt(live).reason is Reason.INSTANCE_LOST
        assert world.attempt(ended).state is AttemptState.CLOSED
        assert world.attempt(bystander).state is AttemptState.WARMING

    def test_one_that_ec2_does_not_know_is_lost_at_the_second_sweep(self, world: World) -> None:
        world.launch()
        live, ended = world.begin(), world.begin()
        world.write_down(live, NOBODY)
        world.write_down(ended, "i-0123456789abcdef1")
        world.cancel(ended)
        sweep = world.sweep()
        sweep.tick()
        sweep.reset()
        sweep.tick()
        world.reaper.check([live, ended], world.limits)
        assert world.attempt(live).state is AttemptState.WARMING
        assert world.attempt(ended).state is AttemptState.EXITED
        sweep.tick()
        assert world.attempt(live).reason is Reason.INSTANCE_LOST
        assert world.attempt(ended).state is AttemptState.CLOSED

    def test_while_ids_can_not_be_looked_up_the_rest_of_the_sweep_goes_on(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ended, mine = world.launch()
        live = world.begin()
        world.write_down(live, NOBODY)
        sweep = world.sweep()
        sweep.tick()
        world.cancel(ended)

        def away(*_: object, **__: object) -> None:
            raise Throttled("describing", "RequestLimitExceeded")

        monkeypatch.setattr(world.cloud, "describe", away)
        sweep.tick()
        assert world.states()[mine] in ENDED
        assert world.attempt(live).state is AttemptState.WARMING


class Consoles:
    """Consoles as EC2 posts them: late, never, or with an error."""

    def __init__(self, world: World, patch: pytest.MonkeyPatch) -> None:
        """Answer for every instance of the world."""
        self.reports: dict[str, str | CloudError] = {}
        self.asked: list[str] = []
        self.now = 0.0
        self.takes_s = 0.0
        patch.setattr(world.reaper, "_clock", lambda: self.now)
        patch.setattr(world.cloud, "console", self)

    def __call__(self, instance_id: str, *, live: bool = True) -> str:
        """Stand in for `Cloud.console`."""
        self.asked.append(instance_id)
        self.now += self.takes_s
        report = self.reports.get(instance_id, "")
        if isinstance(report, CloudError):
            raise report
        return report

    def report(self, world: World, ref: AttemptRef, exit_code: int | None, **how: Any) -> None:
        """Let the machine of an attempt report how its container ended."""
        record = ExitRecord(exit_code=exit_code, **how)
        text = record.model_dump_json(exclude={"log_tail"})
        self.reports[world.attempt(ref).instance_id or ""] = f"atemporal-exit {ref.id} {text}\n"


@pytest.fixture
def consoles(world: World, monkeypatch: pytest.MonkeyPatch) -> Consoles:
    return Consoles(world, monkeypatch)


def run(world: World, **fields: Any) -> tuple[AttemptRef, str]:
    """A new attempt whose machine has claimed it."""
    ref, mine = world.launch(**fields)
    with world.database.begin() as tx:
        attempts.claim(tx, ref, claim_id="c", instance_id=mine, actor="test")
    return ref, mine


def vanish(world: World, *ids: str) -> None:
    for one in ids:
        world.change(one, state="terminated", state_reason=("Server.InternalError", "host"))


class TestOneBadItem:
    """What can not be done for one attempt holds up no other."""

    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            (Rejected("reading", "UnsupportedOperation"), Reason.INSTANCE_LOST),
            (Unauthorized("reading", "UnauthorizedOperation"), Reason.INSTANCE_LOST),
            (Throttled("reading", "RequestLimitExceeded"), None),
        ],
    )
    def test_a_console_that_can_not_be_read(
        self, world: World, consoles: Consoles, fault: CloudError, reason: Reason | None
    ) -> None:
        bad, first = run(world)
        good, second = run(world)
        ended, third = world.launch()
        world.cancel(ended)
        vanish(world, first, second)
        consoles.reports[first] = fault
        consoles.report(world, good, 7)
        world.sweep().tick()
        assert world.attempt(bad).reason is reason
        world.sweep().tick()
        assert world.attempt(good).exit_code == 7
        assert world.states()[third] in ENDED
        consoles.report(world, bad, 3)
        world.sweep().tick()
        assert world.attempt(bad).exit_code == (3 if reason is None else None)

    def test_an_instance_that_is_recorded_as_another_attempts(self, world: World) -> None:
        bad = world.begin()
        taken = world.cloud.run(bad, world.attempt(bad).launch, b"#!/bin/true\n")
        thief = world.begin()
        world.write_down(thief, taken.id)
        good = world.begin()
        mine = world.cloud.run(good, world.attempt(good).launch, b"#!/bin/true\n")
        ended, over = world.launch()
        world.cancel(ended)
        sweep = world.sweep()
        sweep.tick()
        assert world.attempt(bad).instance_id is None
        assert world.attempt(good).instance_id == mine.id
        assert world.states()[over] in ENDED
        world.wait_gone(over)
        sweep.tick()
        assert world.attempt(ended).state is AttemptState.CLOSED

    def test_without_postgres_the_sweep_ends(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, mine = run(world)
        vanish(world, mine)

        def away(*_: object, **__: object) -> None:
            raise Unavailable("Postgres is away")

        monkeypatch.setattr(world.reaper, "end", away)
        with pytest.raises(Unavailable):
            world.sweep().tick()


class TestConsoles:
    def test_a_console_that_comes_late_is_waited_for(
        self, world: World, consoles: Consoles
    ) -> None:
        world.limits = limits(grace_s=60)
        ref, mine = run(world)
        vanish(world, mine)
        sweep = world.sweep()
        sweep.tick()
        sweep.tick()
        assert world.attempt(ref).state is AttemptState.RUNNING
        assert len(consoles.asked) == 1, "it is not due again so soon"
        consoles.report(world, ref, 7)
        consoles.now += PAUSE_S[0]
        sweep.tick()
        assert world.attempt(ref).exit_code == 7

    def test_a_machine_that_has_reported_meanwhile_is_not_asked(
        self, world: World, consoles: Consoles
    ) -> None:
        reported, one = run(world)
        silent, two = run(world)
        vanish(world, one, two)
        snapshot = world.reaper.fleet.snapshot()
        plan, _ = world.reaper.decide(snapshot, world.limits)
        world.complete(reported)
        world.reaper.apply(plan, snapshot)
        assert consoles.asked == [two]
        assert world.attempt(reported).reason is Reason.COMPLETED
        assert world.attempt(silent).reason is Reason.INSTANCE_LOST

    def test_one_that_never_comes_is_waited_for_no_longer_than_the_grace(
        self, world: World, consoles: Consoles
    ) -> None:
        world.limits = limits(grace_s=60)
        ref, mine = run(world)
        vanish(world, mine)
        sweep = world.sweep()
        sweep.tick()
        memory = world.reaper._memory
        earlier = {ref: at - timedelta(seconds=61) for ref, at in memory.gone_since.items()}
        world.reaper._memory = replace(memory, gone_since=earlier)
        sweep.tick()
        assert world.attempt(ref).reason is Reason.INSTANCE_LOST
        sweep.tick()
        assert world.reaper._memory.gone_since == {}

    def test_slow_consoles_are_read_a_sweeps_time_long_and_the_ends_come_first(
        self, world: World, consoles: Consoles
    ) -> None:
        lost = [run(world) for _ in range(5)]
        vanish(world, *(mine for _, mine in lost))
        ended, over = world.launch()
        world.cancel(ended)
        never = world.begin()
        with world.database.begin() as tx:
            tx.execute(
                text("UPDATE attempts SET created_at = now() - interval '9 h' WHERE job_id = :id"),
                {"id": never.job_id},
            )
        consoles.takes_s = 20.0
        sweep = world.sweep()
        sweep.tick()
        assert len(consoles.asked) == 2
        assert world.states()[over] in ENDED
        assert world.attempt(never).reason is Reason.LAUNCH_DEADLINE
        sweep.tick()
        sweep.tick()
        assert len(consoles.asked) == len(set(consoles.asked)) == 5
        assert {world.attempt(ref).reason for ref, _ in lost} == {Reason.INSTANCE_LOST}

    @pytest.mark.parametrize(
        "fault", [Throttled("reading", "SlowDown"), Unreachable("reading", "ReadTimeoutError")]
    )
    def test_the_first_sign_that_ec2_has_no_time_ends_the_reading(
        self, world: World, consoles: Consoles, fault: CloudError
    ) -> None:
        lost = [run(world) for _ in range(4)]
        vanish(world, *(mine for _, mine in lost))
        bad = [mine for _, mine in lost[:2]]
        consoles.reports = dict.fromkeys(bad, fault)
        sweep = world.sweep()
        sweep.tick()
        assert consoles.asked == bad[:1]
        for _ in range(2):
            sweep.tick()
        assert [world.attempt(ref).state for ref, _ in lost] == [
            AttemptState.RUNNING,
            AttemptState.RUNNING,
            AttemptState.EXITED,
            AttemptState.EXITED,
        ], "the bad ones hide no other"

    @pytest.mark.parametrize("booted", [False, True])
    def test_a_machine_that_is_late_may_have_reported_that_there_is_no_such_image(
        self, world: World, consoles: Consoles, booted: bool
    ) -> None:
        world.limits = limits(boot_s=-1, pull_s=-1)
        reported, one = world.launch()
        silent, two = world.launch()
        if booted:
            with world.database.begin() as tx:
                for ref in (reported, silent):
                    attempts.booted(tx, ref, actor="test")
        consoles.report(world, reported, None, phase="pull", definite=True)
        world.sweep().tick()
        assert world.attempt(reported).reason is Reason.IMAGE_REFUSED
        late = Reason.PULL_DEADLINE if booted else Reason.BOOT_DEADLINE
        assert world.attempt(silent).reason is late
        assert {world.states()[one], world.states()[two]} <= set(ENDED)

    def test_a_run_that_is_over_time_may_have_reported_how_it_ended(
        self, world: World, consoles: Consoles
    ) -> None:
        reported, one = run(world, timeout_s=1)
        silent, two = run(world, timeout_s=1)
        consoles.report(world, reported, 7)
        with world.database.begin() as tx:
            tx.execute(text("UPDATE attempts SET running_at = now() - interval '1 hour'"))
        world.sweep().tick()
        assert world.attempt(reported).exit_code == 7
        assert world.attempt(silent).reason is Reason.TIMED_OUT
        assert {world.states()[one], world.states()[two]} <= set(ENDED)


def test_a_machine_that_never_called_is_ended_by_what_others_of_its_kind_took(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot_times, "LEAST", 1)
    booted, _ = world.launch()
    with world.database.begin() as tx:
        attempts.booted(tx, booted, actor="test")
    world.cancel(booted)
    heard, _ = world.launch()
    silent, mine = world.launch()
    with world.database.begin() as tx:
        attempts.booted(tx, heard, actor="test")
    for age_s, reason in ((170, None), (190, Reason.BOOT_DEADLINE)):
        with world.database.begin() as tx:
            tx.execute(
                text(
                    "UPDATE attempts SET launched_at = now() - make_interval(secs => :age)"
                    " WHERE job_id = :id"
                ),
                {"age": age_s, "id": silent.job_id},
            )
        world.sweep().tick()
        assert world.attempt(silent).reason is reason
    assert world.states()[mine] in ENDED


def test_an_address_whose_message_was_lost_is_written_down(world: World) -> None:
    ref, mine = world.launch()
    world.change(mine, state="running")
    shown = world.cloud.describe([mine])[mine]
    assert shown.public_ip or shown.public_dns
    world.sweep().tick()
    attempt = world.attempt(ref)
    assert (attempt.public_dns, attempt.public_ip) == (shown.public_dns, shown.public_ip)


class TestVolumes:
    def test_a_leftover_volume_goes_when_free_twice_and_others_stay(self, world: World) -> None:
        ref, mine = world.launch()
        leftover = world.foreign(tags_of(ref), keep_disk=True)
        theirs = world.foreign(tags_of(ref, "theirs"), keep_disk=True)
        nobodys = world.foreign({}, keep_disk=True)
        unknown = world.foreign(tags_of(AttemptRef(uuid4(), 1)), keep_disk=True)
        world.cancel(ref)
        world.ec2.terminate_instances(InstanceIds=[mine, leftover, theirs, nobodys, unknown])
        world.wait_gone(mine, leftover, theirs, nobodys, unknown)
        world.sweep().tick()
        assert world.attempt(ref).state is AttemptState.CLOSED
        assert len(world.volumes()) == 4
        loop = VolumeLoop(world.reaper, world.database, grace_s=-1, interval_s=1, every=1)
        loop.tick()
        assert len(world.volumes()) == 4, "once is not enough"
        loop.tick()
        assert len(world.volumes()) == 3
        free = world.cloud.volumes()
        assert [one.tags["atemporal:job"] for one in free] != [str(ref.job_id)]
        assert REGISTRY.get_sample_value("atemporal_orphaned_volumes") == 1
        for _ in range(3):
            loop.tick()
        assert len(world.volumes()) == 3

    def test_while_the_attempt_is_open_its_volume_stays(self, world: World) -> None:
        ref, _ = world.launch()
        second = world.foreign(tags_of(ref), keep_disk=True)
        world.ec2.terminate_instances(InstanceIds=[second])
        world.wait_gone(second)
        before = world.volumes()
        loop = VolumeLoop(world.reaper, world.database, grace_s=-1, interval_s=1, every=1)
        for _ in range(3):
            loop.tick()
        assert world.volumes() == before

    def test_it_checks_every_so_many_ticks(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[int] = []

        def volumes() -> list[Volume]:
            asked.append(1)
            return []

        monkeypatch.setattr(world.cloud, "volumes", volumes)
        loop = VolumeLoop(world.reaper, world.database, grace_s=0, interval_s=7, every=3)
        assert [loop.tick() for _ in range(7)] == [7] * 7
        assert len(asked) == 3


def rows(status: str) -> float | None:
    return REGISTRY.get_sample_value("atemporal_reconciliation_rows", {"status": status})


def audited(world: World) -> None:
    AuditLoop(world.reaper, world.database, limits=limits(), interval_s=1).tick()


def test_the_audit_is_in_the_gauges(world: World) -> None:
    ref, _ = world.launch()
    world.foreign(tags_of(ref))
    world.foreign(tags_of(AttemptRef(uuid4(), 1)))
    world.write_down(world.begin(), NOBODY)
    audited(world)
    shown = {name: rows(name) for name in ("matched", "duplicate", "orphaned", "missing")}
    assert shown == {"matched": 1, "duplicate": 1, "orphaned": 1, "missing": 1}
    broken = {"invariant": "one_live_attempt"}
    assert REGISTRY.get_sample_value("atemporal_record_violations", broken) == 0


def test_what_takes_too_long_to_check_does_not_hide_drift(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def takes_too_long(*_: object) -> None:
        raise Unavailable("the database gave up on a query")

    monkeypatch.setattr("services.reaper.auditor.violations", takes_too_long)
    world.foreign(tags_of(AttemptRef(uuid4(), 1)))
    with pytest.raises(Unavailable):
        audited(world)
    assert rows("orphaned") == 1


def gauge(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_only_who_swept_says_when(world: World) -> None:
    LAST_SWEEP.set(0)
    with world.database.only_one("reaper sweep"):
        world.sweep().tick()
        assert gauge("atemporal_last_sweep_timestamp_seconds") == 0
    world.sweep().tick()
    assert gauge("atemporal_last_sweep_timestamp_seconds") > 1e9


def test_a_row_that_can_not_be_read_costs_neither_its_instance_nor_the_others_theirs(
    world: World,
) -> None:
    bad, spared = world.launch()
    over, ended = world.launch()
    world.cancel(over)
    with world.database.begin() as tx:
        tx.execute(
            text("UPDATE attempts SET launch = '{}' WHERE job_id = :id"), {"id": bad.job_id}
        )
    stranger = world.foreign(tags_of(AttemptRef(uuid4(), 1)))
    sweep = world.sweep()
    for _ in range(3):
        sweep.tick()
    assert world.states()[spared] == "pending"
    assert world.states()[ended] in ENDED
    assert world.states()[stranger] in ENDED


def test_a_mistake_about_one_attempt_holds_up_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = [world.launch()[0] for _ in range(3)]
    for ref in refs:
        world.cancel(ref)
    sweep = world.sweep()
    sweep.tick()
    world.wait_gone(*world.states())
    close = attempts.close

    def mistaken(tx: Any, ref: AttemptRef, **more: Any) -> bool:
        if ref == refs[0]:
            raise ZeroDivisionError
        return close(tx, ref, **more)

    monkeypatch.setattr(attempts, "close", mistaken)
    counted = {"loop": "reap-sweep", "kind": "error"}
    before = gauge("atemporal_tick_errors_total", **counted)
    sweep.tick()
    states = [world.attempt(ref).state for ref in refs]
    assert states == [AttemptState.EXITED, AttemptState.CLOSED, AttemptState.CLOSED]
    assert gauge("atemporal_tick_errors_total", **counted) == before + 1
