"""What becomes of a launch group by what EC2 answered, or what a row holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import text

from atemporal.cloud import (
    CloudError,
    Rejected,
    TokenSpent,
)
from atemporal.errors import Unreadable
from atemporal.model import AttemptRef, LaunchGroup
from atemporal.states import BlockedReason, JobState, Reason
from atemporal.store import groups
from atemporal.store.database import Database
from services.launcher.offerings import offering_of
from tests.frozen_clock import freeze
from tests.integration.grouping import THROTTLED, TOO_MANY, Groups, Some
from tests.integration.launching import (
    NO_CAPACITY,
    OVER_QUOTA,
    UNKNOWN,
    A,
    B,
    Done,
    error,
)


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

    @pytest.mark.parametrize("refusal", [NO_CAPACITY, OVER_QUOTA, error(Rejected, "NoSuchKey")])
    def test_a_refused_repeat_asks_for_nothing_more_where_all_that_was_launched_is_gone(
        self, world: Groups, refusal: CloudError
    ) -> None:
        world.cloud.outcomes = [Done(UNKNOWN[0]), refusal]
        refs = world.burst(3)
        ((token, launched),) = world.cloud.launched.items()
        world.cloud.launched[token] = [replace(one, state="terminated") for one in launched]
        world.later(30)
        world.sweep.tick()
        assert sorted(world.instances(refs)) == sorted(one.id for one in launched)
        assert world.cloud.sizes == [3, 3]
        assert world.cloud.calls == []

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
