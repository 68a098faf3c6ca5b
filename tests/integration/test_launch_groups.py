"""Launch groups on a real Postgres, against a cloud that answers by a script."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, event, text

from atemporal.cloud import (
    CloudError,
    Instance,
    Rejected,
    Throttled,
    TokenSpent,
    TooMany,
    WrongImage,
)
from atemporal.cloud.instance import tags_of_group
from atemporal.errors import Conflict, NotFound, Unreadable
from atemporal.model import AttemptRef, Launch, LaunchGroup
from atemporal.states import AttemptState, BlockedReason, JobState, Reason
from atemporal.store import attempts, groups, jobs, launches
from atemporal.store.database import Database
from services.launcher.intent import GroupIntent
from services.launcher.offerings import offering_of
from tests.frozen_clock import advance, freeze
from tests.integration.test_launcher import (
    NO_CAPACITY,
    OVER_QUOTA,
    UNKNOWN,
    A,
    B,
    Done,
    ScriptedCloud,
    World,
    error,
)

THROTTLED = error(Throttled, "RequestLimitExceeded")
TOO_MANY = error(TooMany, "ResourceCountExceeded")


@dataclass(frozen=True)
class Some:
    """An outcome for the script: so many instances are launched and no more."""

    many: int


@dataclass
class GroupCloud(ScriptedCloud):
    """EC2, for calls of many: the same call gives the same instances again."""

    outcomes: list[CloudError | Done | Some] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    launched: dict[str, list[Instance]] = field(default_factory=dict)
    requests: dict[str, str] = field(default_factory=dict)
    hidden: bool = False

    def run_group(
        self, group_id: UUID, launch: Launch, size: int, user_data: bytes
    ) -> list[Instance]:
        if launch.image_id in self.wrong_images:
            raise WrongImage("launching", "WrongImage", "not flatcar")
        request = self.real._group_request(group_id, launch, size, user_data)
        token = request["ClientToken"]
        # Another request with the same token is what EC2 refuses.
        assert self.requests.setdefault(token, repr(request)) == repr(request)
        self.sizes.append(size)
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, CloudError):
            raise outcome
        if token not in self.launched:
            many = min(size, outcome.many) if isinstance(outcome, Some) else size
            first = sum(map(len, self.launched.values()))
            self.launched[token] = [
                Instance(
                    id=f"i-8{first + number:016x}",
                    state="running",
                    launched_at=datetime.now(UTC),
                    client_token=token,
                    tags=tags_of_group("default", group_id),
                )
                for number in range(many)
            ]
        if isinstance(outcome, Done):
            raise outcome.error
        return self.launched[token]

    def find_group(self, group_id: UUID) -> list[Instance]:
        return [] if self.hidden else [one for one in self.all() if one.group_id == group_id]

    def all(self) -> list[Instance]:
        of_groups = [one for some in self.launched.values() for one in some]
        return [*super().all(), *of_groups]


class Groups(World):
    """A world whose launcher launches in groups."""

    cloud: GroupCloud

    def __init__(self, database: Database, **settings: Any) -> None:
        super().__init__(database, **{"launch_group_size": 200, **settings})
        self.cloud = GroupCloud(self.cloud.real)
        self.restart()

    def restart(self, **settings: Any) -> None:
        """A new process, with other settings where they are given."""
        self.settings = self.settings.model_copy(update=settings)
        super().restart()

    def burst(self, many: int, **machine: Any) -> list[AttemptRef]:
        """Jobs of one shape, and what a message for each makes the launcher do."""
        refs = [self.queued(**machine) for _ in range(many)]
        self.work(refs)
        return refs

    def work(self, refs: list[AttemptRef]) -> None:
        for subject, spec in self.launcher.begin(refs):
            self.launcher.call(subject, spec)

    def later(self, seconds: float) -> None:
        super().later(seconds)
        with self.database.begin() as tx:
            tx.execute(
                text(
                    "UPDATE launch_groups SET called_at = called_at - make_interval(secs => :s),"
                    " launch = launch || jsonb_build_object('unsure_at',"
                    " (launch ->> 'unsure_at')::timestamptz - make_interval(secs => :s))"
                ),
                {"s": seconds},
            )

    def sweeps(self, times: int = 12) -> None:
        """Let the sweep find what is left, again and again."""
        for _ in range(times):
            self.later(1)
            self.sweep.tick()

    def instances(self, refs: list[AttemptRef]) -> list[str]:
        found = [self.attempt(ref).instance_id for ref in refs]
        return [one for one in found if one]

    def groups(self) -> list[LaunchGroup]:
        with self.database.begin() as tx:
            ids = tx.scalars(text("SELECT id FROM launch_groups ORDER BY created_at, id"))
            return [groups.get(tx, one) for one in ids]

    def each_has_one(self, refs: list[AttemptRef]) -> bool:
        """Each attempt has an instance that was launched, and none has another's."""
        ids = self.instances(refs)
        known = {one.id for one in self.cloud.all()}
        return len(set(ids)) == len(refs) == len(ids) and set(ids) <= known


@pytest.fixture(scope="module", autouse=True)
def frozen(database: Database) -> None:
    freeze(database)


@pytest.fixture
def world(database: Database) -> Iterator[Groups]:
    world = Groups(database)
    yield world
    world.cloud.real.close()
    with database.begin() as tx:
        tx.execute(text("TRUNCATE jobs, attempts, launch_groups, events, rate_limits CASCADE"))


class TestOneCall:
    @pytest.mark.parametrize("many", [2, 3, 20])
    def test_jobs_of_one_shape_are_one_call(self, world: Groups, many: int) -> None:
        refs = world.burst(many)
        assert world.cloud.sizes == [many]
        assert world.cloud.calls == []
        assert world.each_has_one(refs)
        assert all(world.has_instance(ref) for ref in refs)
        (group,) = world.groups()
        assert group.settled_at is not None
        with world.database.begin() as tx:
            assert groups.unsettled(tx) == frozenset()
            assert len(groups.untagged(tx, limit=100)) == many

    def test_one_job_is_the_call_that_it_always_was(self, world: Groups) -> None:
        (ref,) = world.burst(1)
        assert world.cloud.sizes == []
        assert world.cloud.calls[0].token == f"{ref.id}.0"
        assert world.has_instance(ref)

    def test_many_that_are_not_alike_are_leased_as_calls_can_be_made(
        self, world: Groups, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put_back: list[int] = []
        real = launches.put_back

        def spy(tx: Connection, refs: Sequence[AttemptRef]) -> None:
            put_back.append(len(refs))
            real(tx, refs)

        monkeypatch.setattr(launches, "put_back", spy)
        monkeypatch.setattr(world.launcher.admission, "calls", lambda most: min(most, 2))
        refs = [world.queued(disk_gb=30 + number) for number in range(20)]
        world.work(refs)
        assert put_back == [18]
        for _ in range(9):
            world.later(1)
            world.sweep.tick()
        assert world.each_has_one(refs)
        # Of those that a sweep took up at most half were for nothing, and not all the others each time.
        assert max(put_back[1:]) <= 2

    def test_what_is_not_alike_is_not_launched_together(self, world: Groups) -> None:
        small = [world.queued() for _ in range(3)]
        large = [world.queued(instance_types=["m5.large"]) for _ in range(2)]
        spot = [world.queued(capacity_type="spot") for _ in range(2)]
        disk = world.queued(disk_gb=50)
        world.work([*small, *large, *spot, disk])
        assert sorted(world.cloud.sizes) == [2, 2, 3]
        assert len(world.cloud.calls) == 1
        assert world.each_has_one([*small, *large, *spot, disk])

    def test_jobs_with_other_run_limits_have_other_deadlines(self, world: Groups) -> None:
        # A machine's own deadline is in the user-data, which a group's machines share.
        refs = [world.queued(), world.queued()]
        with world.database.begin() as tx:
            tx.execute(
                text("UPDATE jobs SET spec = spec || '{\"timeout_s\": 60}' WHERE id = :id"),
                {"id": refs[1].job_id},
            )
        world.work(refs)
        assert world.cloud.sizes == []
        assert len(world.cloud.calls) == 2

    @pytest.mark.parametrize(("size", "sizes"), [(1, []), (2, [2, 2]), (4, [4])])
    def test_no_call_asks_for_more_than_the_setting(
        self, world: Groups, size: int, sizes: list[int]
    ) -> None:
        world.restart(launch_group_size=size)
        refs = world.burst(5)
        world.sweeps()
        assert world.cloud.sizes == sizes
        assert world.each_has_one(refs)

    def test_a_call_for_many_waits_for_a_token_that_is_there_soon(self, world: Groups) -> None:
        # The last token is left to small calls, so of two at once one finds none.
        world.restart(run_instances_burst=2, run_instances_rate=4, launch_group_size=2)
        world.pause = partial(advance, world.database)
        refs = world.burst(4)
        assert world.cloud.sizes == [2, 2]
        assert world.each_has_one(refs)

    def test_a_call_for_many_does_not_wait_for_long(self, world: Groups) -> None:
        world.restart(run_instances_burst=2, run_instances_rate=0.4, launch_group_size=2)
        world.pause = lambda seconds: pytest.fail(f"it waits for {seconds} s")
        refs = world.burst(4)
        assert world.cloud.sizes == [2]
        world.sweeps()
        assert world.each_has_one(refs)

    def test_the_instance_tokens_bound_a_call_and_the_rest_follows(self, world: Groups) -> None:
        world.restart(instances_burst=3, instances_rate=1)
        refs = world.burst(8)
        world.sweeps(20)
        assert max(world.cloud.sizes) <= 3
        assert world.each_has_one(refs)

    def test_all_of_a_call_is_recorded_before_it_is_sent(self, world: Groups) -> None:
        stored: list[tuple[int, int, int]] = []
        run = world.cloud.run_group

        def looking(group_id: UUID, launch: Launch, size: int, data: bytes) -> list[Instance]:
            with world.database.begin() as tx:
                group = groups.get(tx, group_id)
                stored.append((group.launch.calls, group.size, len(groups.waiting(tx, group_id))))
            return run(group_id, launch, size, data)

        world.cloud.run_group = looking  # type: ignore[assignment, method-assign]
        world.burst(4)
        assert stored == [(1, 4, 4)]


class TestCrashes:
    @pytest.mark.parametrize("unknown", UNKNOWN)
    @pytest.mark.parametrize("done", [True, False])
    def test_an_unknown_outcome_is_repeated_to_the_byte(
        self, world: Groups, unknown: CloudError, done: bool
    ) -> None:
        world.cloud.outcomes = [Done(unknown) if done else unknown] * 2
        refs = world.burst(5)
        assert world.instances(refs) == []
        assert {world.attempt(ref).blocked_on for ref in refs} == {BlockedReason.ANSWER}
        world.restart()
        for _ in range(2):
            world.later(30)
            world.sweep.tick()
        assert world.cloud.sizes == [5, 5, 5]
        assert len(world.cloud.requests) == 1
        assert world.each_has_one(refs)
        assert all(world.attempt(ref).blocked_on is None for ref in refs)
        assert world.blocked_on(refs[0]) == ["answer"]

    def test_a_crash_before_the_answer_is_written_down(self, world: Groups) -> None:
        refs = [world.queued() for _ in range(4)]
        ((group, _),) = world.launcher.begin(refs)
        assert isinstance(group, LaunchGroup)
        with world.database.begin() as tx:
            asked = groups.ask(tx, group.id, group.launch, at_most=None)
            assert asked is not None
        launch, size = asked
        data = GroupIntent(group, world.settings).render(launch)
        world.cloud.run_group(group.id, launch, size, data)
        world.restart()
        world.sweeps(1)
        assert world.instances(refs) == []
        world.later(world.settings.stale_after_s)
        world.sweep.tick()
        assert world.each_has_one(refs)
        assert world.cloud.sizes == [4, 4]

    def test_a_crash_after_the_group_and_before_the_call(self, world: Groups) -> None:
        refs = [world.queued() for _ in range(4)]
        world.launcher.begin(refs)
        world.restart()
        world.later(world.settings.stale_after_s + 1)
        world.sweep.tick()
        assert world.cloud.sizes == [4]
        assert world.each_has_one(refs)

    def test_of_two_that_read_the_same_row_one_calls(self, world: Groups) -> None:
        refs = [world.queued() for _ in range(3)]
        ((group, spec),) = world.launcher.begin(refs)
        world.launcher.call(group, spec)
        world.launcher.call(group, spec)
        assert world.cloud.sizes == [3]
        assert world.each_has_one(refs)

    def test_no_attempt_of_a_group_is_launched_by_itself(self, world: Groups) -> None:
        refs = [world.queued() for _ in range(3)]
        world.restart(launch_group_size=1)
        alone = world.launcher.begin(refs)
        world.restart(launch_group_size=200)
        world.later(world.settings.stale_after_s + 1)
        world.sweep.tick()
        assert world.cloud.sizes == [3]
        for attempt, spec in alone:
            world.launcher.call(attempt, spec)
        assert world.cloud.calls == []
        assert world.each_has_one(refs)


class TestOutcomes:
    @pytest.mark.parametrize(("granted", "many"), [(1, 2), (3, 7), (5, 6)])
    def test_who_gets_none_of_a_part_is_asked_for_anew(
        self, world: Groups, granted: int, many: int
    ) -> None:
        world.cloud.outcomes = [Some(granted)]
        refs = world.burst(many)
        assert len(world.instances(refs)) == granted
        world.sweeps()
        assert world.each_has_one(refs)
        assert sum(world.cloud.sizes) + len(world.cloud.calls) == many + (many - granted)

    def test_a_refusal_for_capacity_goes_on_to_the_next_offering(self, world: Groups) -> None:
        world.cloud.outcomes = [NO_CAPACITY]
        refs = world.burst(4)
        assert world.cloud.sizes == [4, 4]
        assert world.each_has_one(refs)
        assert {world.attempt(ref).launch.subnet_id for ref in refs} == {B}
        assert len(world.cloud.requests) == 2

    def test_without_any_offering_all_are_blocked_and_go_on_together(self, world: Groups) -> None:
        world.cloud.outcomes = [NO_CAPACITY, NO_CAPACITY]
        refs = world.burst(4)
        assert {world.attempt(ref).blocked_on for ref in refs} == {BlockedReason.CAPACITY}
        world.later(world.settings.capacity_cooldown_s + 60)
        world.sweep.tick()
        assert world.cloud.sizes == [4, 4, 4]
        assert world.each_has_one(refs)

    @pytest.mark.parametrize("refusal", [TOO_MANY, OVER_QUOTA])
    def test_what_is_too_much_for_one_call_is_asked_for_one_by_one_and_then_doubled(
        self, world: Groups, refusal: CloudError
    ) -> None:
        world.cloud.outcomes = [refusal]
        refs = world.burst(8)
        assert world.cloud.sizes == [8, 1]
        assert len(world.instances(refs)) == 1
        world.sweeps()
        assert world.each_has_one(refs)
        assert world.cloud.sizes == [8, 1, 2, 2, 2]
        world.burst(8)
        assert world.cloud.sizes[5:] == [4, 4]
        # No offering was given up for it.
        assert {world.attempt(ref).launch.subnet_id for ref in refs} == {A}

    def test_a_bucket_that_is_smaller_than_the_call_blocks_nobody_for_ever(
        self, world: Groups
    ) -> None:
        world.cloud.outcomes = [THROTTLED] * 3
        refs = world.burst(8)
        assert world.cloud.sizes == [8]
        for _ in range(4):
            world.later(300)
            world.sweeps()
        # The first refusal may be one of requests; the next ones are taken as one of instances.
        assert world.cloud.sizes[:4] == [8, 8, 1, 1]
        assert world.each_has_one(refs)

    def test_what_a_group_can_not_ask_for_any_more_is_not_left_to_a_sweeps_time(
        self, world: Groups
    ) -> None:
        world.cloud.outcomes = [NO_CAPACITY, NO_CAPACITY]
        refs = world.burst(4)
        world.later(world.settings.capacity_cooldown_s + 60)
        ((group, spec),) = world.launcher.unfinished()
        for subnet_id in (A, B):
            offering = offering_of(group.launch)._replace(subnet_id=subnet_id)
            world.launcher.admission.call_sizes.refused(offering)
        world.launcher.admission.backlog.clear()
        world.launcher.call(group, spec)
        assert world.cloud.sizes[2:] == [1]
        assert world.launcher.behind
        for subject, one in world.launcher.unfinished():
            world.launcher.call(subject, one)
        assert world.each_has_one(refs)

    def test_a_quota_that_has_room_for_none_blocks_all(self, world: Groups) -> None:
        world.cloud.outcomes = [OVER_QUOTA] * 20
        world.cloud.script = [OVER_QUOTA] * 20
        refs = world.burst(4)
        world.sweeps()
        assert world.instances(refs) == []
        assert {world.attempt(ref).blocked_on for ref in refs} == {BlockedReason.QUOTA}
        assert len(world.cloud.sizes) + len(world.cloud.calls) <= 4

    @pytest.mark.parametrize("code", ["InvalidParameterValue", "InvalidKeyPair.NotFound"])
    def test_a_refusal_of_many_says_nothing_of_one(self, world: Groups, code: str) -> None:
        world.cloud.outcomes = [error(Rejected, code)]
        refs = world.burst(4)
        assert world.cloud.sizes == [4, 1]
        world.sweeps()
        assert world.each_has_one(refs)

    def test_many_that_are_wrong_cost_one_call_of_many(self, world: Groups) -> None:
        world.cloud.outcomes = [error(Rejected, "InvalidParameterValue")] * 20
        world.cloud.script = [error(Rejected, "InvalidParameterValue")] * 20
        refs = world.burst(12)
        world.sweeps()
        assert {world.attempt(ref).reason for ref in refs} == {Reason.LAUNCH_REFUSED}
        assert world.cloud.sizes == [12, 1]
        assert len(world.cloud.calls) == 11

    def test_one_that_can_not_be_read_keeps_no_other_from_ending(self, world: Groups) -> None:
        world.cloud.outcomes = [error(TokenSpent)]
        refs = [world.queued() for _ in range(3)]
        begun = world.launcher.begin(refs)
        with world.database.begin() as tx:
            tx.execute(text("UPDATE jobs SET spec = '[]' WHERE id = :id"), {"id": refs[1].job_id})
        for subject, spec in begun:
            world.launcher.call(subject, spec)
        (group,) = world.groups()
        assert group.settled_at is not None
        with world.database.begin() as tx:
            states = [
                tx.scalar(
                    text("SELECT state FROM attempts WHERE job_id = :id"), {"id": ref.job_id}
                )
                for ref in refs
            ]
            tx.execute(text("DELETE FROM attempts WHERE job_id = :id"), {"id": refs[1].job_id})
            tx.execute(text("DELETE FROM jobs WHERE id = :id"), {"id": refs[1].job_id})
        assert states == ["exited", "launching", "exited"]

    @pytest.mark.parametrize("room", [1, 2, 5])
    def test_what_can_not_be_launched_keeps_nothing_from_being_begun(
        self, world: Groups, monkeypatch: pytest.MonkeyPatch, room: int
    ) -> None:
        refs = [world.queued(disk_gb=30 + number) for number in range(9)]
        monkeypatch.setattr(world.launcher.admission, "take", lambda *_: 0)
        world.work(refs)
        later = world.queued(disk_gb=90)
        world.later(300)
        monkeypatch.setattr(world.launcher, "room", lambda: room)
        world.sweeps(2)
        assert world.job(later).state is JobState.WARMING

    def test_a_definite_refusal_ends_the_one_that_it_was_for(self, world: Groups) -> None:
        world.cloud.outcomes = [error(Rejected, "InvalidKeyPair.NotFound")] * 2
        refs = world.burst(3)
        ended = [ref for ref in refs if world.attempt(ref).reason is Reason.LAUNCH_REFUSED]
        assert [world.job(ref).state for ref in ended] == [JobState.FINISHED]
        (group,) = world.groups()
        assert group.settled_at is not None
        world.sweeps()
        assert world.each_has_one([ref for ref in refs if ref not in ended])

    @pytest.mark.parametrize("gone", [0, 1, 3])
    def test_a_spent_token_gives_what_it_launched(self, world: Groups, gone: int) -> None:
        world.cloud.outcomes = [Done(UNKNOWN[0]), error(TokenSpent)]
        refs = world.burst(3)
        (token,) = world.cloud.launched
        launched = world.cloud.launched[token]
        for number in range(gone):
            launched[number] = replace(launched[number], state="terminated")
        world.later(30)
        world.sweep.tick()
        assert sorted(world.instances(refs)) == sorted(one.id for one in launched)

    def test_a_refused_repeat_waits_until_ec2_would_show_what_was_launched(
        self, world: Groups
    ) -> None:
        world.cloud.outcomes = [Done(UNKNOWN[0]), NO_CAPACITY]
        world.cloud.hidden = True
        refs = world.burst(3)
        world.later(30)
        world.sweep.tick()
        assert world.instances(refs) == []
        assert {world.attempt(ref).blocked_on for ref in refs} == {BlockedReason.ANSWER}
        world.cloud.hidden = False
        world.later(world.settings.cloud_grace_s)
        world.sweep.tick()
        assert world.each_has_one(refs)
        assert len(world.cloud.all()) == 3

    def test_an_image_that_is_wrong_by_now_is_exchanged_for_all(self, world: Groups) -> None:
        refs = [world.queued() for _ in range(3)]
        ((group, spec),) = world.launcher.begin(refs)
        world.cloud.wrong_images, world.cloud.image = {"ami-1"}, "ami-2"
        world.launcher.call(group, spec)
        assert world.each_has_one(refs)
        assert {world.attempt(ref).launch.image_id for ref in refs} == {"ami-2"}

    @pytest.mark.parametrize("shown", [1, 2])
    def test_an_image_is_exchanged_only_when_ec2_shows_all_that_the_old_one_launched(
        self, world: Groups, shown: int
    ) -> None:
        world.cloud.outcomes = [Done(UNKNOWN[0])]
        refs = world.burst(3)
        find = world.cloud.find_group
        world.cloud.find_group = lambda group_id: find(group_id)[:shown]  # type: ignore[method-assign]
        world.cloud.wrong_images, world.cloud.image = {"ami-1"}, "ami-2"
        world.later(30)
        world.sweep.tick()
        assert world.instances(refs) == []
        world.cloud.find_group = find  # type: ignore[method-assign]
        world.later(world.settings.cloud_grace_s)
        world.sweep.tick()
        assert world.each_has_one(refs)
        assert len(world.cloud.all()) == 3


class TestUnreadable:
    """What another release, or a hand, wrote into one row stops nobody else."""

    def damage(self, world: Groups, refs: list[AttemptRef]) -> None:
        with world.database.begin() as tx:
            tx.execute(
                text("UPDATE jobs SET spec = jsonb_build_object('image', 7) WHERE id = ANY(:ids)"),
                {"ids": [ref.job_id for ref in refs]},
            )

    @pytest.mark.parametrize("many", [1, 2])
    def test_one_specification_settles_no_group_whose_others_wait(
        self, world: Groups, many: int
    ) -> None:
        refs = sorted(world.queued() for _ in range(3))
        world.launcher.begin(refs)
        self.damage(world, refs[:many])
        world.restart()
        world.later(world.settings.stale_after_s + 1)
        world.sweep.tick()
        assert world.cloud.sizes == [3]
        assert all(world.instances([ref]) for ref in refs[many:])

    def test_with_no_specification_the_group_is_left_to_a_later_sweep(self, world: Groups) -> None:
        refs = [world.queued() for _ in range(2)]
        world.launcher.begin(refs)
        self.damage(world, refs)
        world.restart()
        for _ in range(2):
            world.later(world.settings.stale_after_s + 1)
            world.sweep.tick()
        assert world.cloud.sizes == []
        (group,) = world.groups()
        assert group.settled_at is None

    @pytest.mark.parametrize("launch", ["{}", '{"placement": "first"}'])
    def test_one_group_stops_no_other(self, world: Groups, launch: str) -> None:
        bad = [world.queued() for _ in range(2)]
        ((group, _),) = world.launcher.begin(bad)
        good = [world.queued() for _ in range(2)]
        world.launcher.begin(good)
        assert isinstance(group, LaunchGroup)
        with world.database.begin() as tx:
            tx.execute(
                text("UPDATE launch_groups SET launch = CAST(:launch AS jsonb) WHERE id = :id"),
                {"launch": launch, "id": group.id},
            )
        world.restart()
        with world.database.begin() as tx:
            tx.execute(
                text("UPDATE launch_groups SET called_at = called_at - make_interval(secs => :s)"),
                {"s": world.settings.stale_after_s + 1},
            )
        world.sweep.tick()
        assert world.each_has_one(good)
        with world.database.begin() as tx, pytest.raises(Unreadable, match=str(group.id)):
            groups.get(tx, group.id)


class TestManyGroups:
    def stale(self, world: Groups, many: int) -> None:
        """Groups of two whose calls nobody has made, by the release before."""
        for _ in range(many):
            world.launcher.begin([world.queued(), world.queued()])
        world.restart()
        with world.database.begin() as tx:
            tx.execute(
                text("UPDATE launch_groups SET called_at = called_at - make_interval(secs => :s)"),
                {"s": world.settings.stale_after_s + 1},
            )

    @pytest.mark.parametrize("calls", [1, 3])
    def test_no_more_groups_are_leased_than_calls_may_be_made(
        self, world: Groups, calls: int
    ) -> None:
        self.stale(world, 5)
        world.launcher.admission.calls = lambda most: min(most, calls)  # type: ignore[method-assign]
        found = world.launcher.unfinished()
        assert len(found) == calls
        assert world.launcher.behind

    @pytest.mark.parametrize("room", [2, 4])
    def test_singles_have_room_beside_groups_without_end(self, world: Groups, room: int) -> None:
        self.stale(world, 5)
        single = world.queued(disk_gb=50)
        world.launcher.begin([single])
        with world.database.begin() as tx:
            tx.execute(
                text("UPDATE attempts SET called_at = to_timestamp(0) WHERE job_id = :id"),
                {"id": single.job_id},
            )
        world.launcher.admission.room = lambda most: room  # type: ignore[method-assign]
        found = world.launcher.unfinished()
        assert [one.ref for one, _ in found if not isinstance(one, LaunchGroup)] == [single]
        assert world.launcher.behind


class TestCancelled:
    def cancel(self, world: Groups, ref: AttemptRef) -> None:
        with world.database.begin() as tx:
            jobs.cancel(tx, ref.job_id, actor="test")

    def test_before_the_call_it_is_asked_for_no_more(self, world: Groups) -> None:
        refs = [world.queued() for _ in range(3)]
        ((group, spec),) = world.launcher.begin(refs)
        self.cancel(world, refs[0])
        world.launcher.call(group, spec)
        assert world.cloud.sizes == [2]
        assert world.each_has_one(refs[1:])

    def test_while_the_call_is_under_way_its_instance_is_its_own_to_be_ended(
        self, world: Groups
    ) -> None:
        run = world.cloud.run_group
        refs = [world.queued() for _ in range(3)]

        def cancelling(*given: Any) -> list[Instance]:
            self.cancel(world, refs[0])
            return run(*given)

        world.cloud.run_group = cancelling  # type: ignore[assignment, method-assign]
        world.work(refs)
        assert world.each_has_one(refs)
        assert world.attempt(refs[0]).state is AttemptState.EXITED

    def test_all_of_them_before_the_call(self, world: Groups) -> None:
        refs = [world.queued() for _ in range(3)]
        ((group, spec),) = world.launcher.begin(refs)
        for ref in refs:
            self.cancel(world, ref)
        world.launcher.call(group, spec)
        assert world.cloud.sizes == []
        assert world.groups()[0].settled_at is not None

    def test_all_of_them_while_the_answer_is_open(self, world: Groups) -> None:
        world.cloud.outcomes = [Done(UNKNOWN[0])]
        refs = world.burst(3)
        for ref in refs:
            self.cancel(world, ref)
        world.later(30)
        world.sweep.tick()
        assert world.cloud.sizes == [3]
        assert world.groups()[0].settled_at is not None


class TestAssignment:
    def test_each_machine_is_told_the_attempt_of_its_instance(self, world: Groups) -> None:
        refs = world.burst(3)
        (group,) = world.groups()
        for ref in refs:
            instance_id = world.attempt(ref).instance_id
            assert instance_id
            for _ in range(2):
                with world.database.begin() as tx:
                    found = groups.assigned(tx, group.id, instance_id)
                assert found is not None
                assert found[0].ref == ref

    def test_a_machine_without_a_job_is_refused(self, world: Groups) -> None:
        refs = world.burst(2)
        (group,) = world.groups()
        with world.database.begin() as tx, pytest.raises(Conflict, match="no attempt"):
            groups.assigned(tx, group.id, "i-0123456789abcdef0")
        with world.database.begin() as tx:
            assert attempts.end(tx, refs[0], Reason.BOOT_DEADLINE, actor="test")
        instance_id = world.attempt(refs[0]).instance_id
        assert instance_id
        with world.database.begin() as tx, pytest.raises(Conflict, match="has ended"):
            groups.assigned(tx, group.id, instance_id)

    def test_before_the_answer_is_written_down_it_waits(self, world: Groups) -> None:
        world.cloud.outcomes = [Done(UNKNOWN[0])]
        world.burst(2)
        (group,) = world.groups()
        with world.database.begin() as tx:
            assert groups.assigned(tx, group.id, "i-0123456789abcdef0") is None
            with pytest.raises(NotFound):
                groups.assigned(tx, UUID(int=7), "i-0123456789abcdef0")

    @pytest.mark.parametrize("many", [2, 3])
    def test_what_is_written_down_between_two_questions_refuses_no_machine(
        self, world: Groups, many: int
    ) -> None:
        world.cloud.outcomes = [Done(UNKNOWN[0])]
        refs = world.burst(many)
        (group,) = world.groups()
        (instances,) = world.cloud.launched.values()
        ids = [one.id for one in instances]
        asked: list[int] = []

        def written_down(*_: Any) -> None:
            if not asked:
                asked.append(1)
                with world.database.begin() as other:
                    groups.launched(other, group.id, group.launch, ids, actor="test")

        with world.database.begin() as tx:
            event.listen(tx, "after_cursor_execute", written_down)
            found = groups.assigned(tx, group.id, ids[0])
        assert asked
        assert found is not None
        assert found[0].ref in refs

    def test_another_groups_instance_is_none_of_this_one(self, world: Groups) -> None:
        world.burst(2)
        others = world.burst(2)
        first, _ = world.groups()
        instance_id = world.attempt(others[0]).instance_id
        assert instance_id
        with world.database.begin() as tx, pytest.raises(Conflict):
            groups.assigned(tx, first.id, instance_id)
