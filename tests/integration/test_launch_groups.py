"""Launch groups on a real Postgres, against a cloud that answers by a script."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, event, text

from atemporal.cloud import (
    CloudError,
    Instance,
)
from atemporal.errors import Conflict, NotFound
from atemporal.limits import Limit
from atemporal.model import AttemptRef, Launch, LaunchGroup
from atemporal.states import AttemptState, BlockedReason, Reason
from atemporal.store import assignments, attempts, groups, jobs, launches, untagged
from atemporal.store.database import Database
from services.launcher.intent import GroupIntent
from tests.frozen_clock import advance, freeze
from tests.integration.grouping import Groups
from tests.integration.launching import (
    UNKNOWN,
    Done,
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
            assert len(untagged.find(tx, limit=100)) == many

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

    def test_a_call_for_one_and_a_repeated_one_do_not_wait(self, world: Groups) -> None:
        world.restart(run_instances_burst=1, run_instances_rate=1, launch_group_size=2)
        world.pause = lambda seconds: pytest.fail(f"it waits for {seconds} s")
        world.burst(1)
        refs = world.burst(1)
        assert world.instances(refs) == []
        world.sweeps()
        world.cloud.outcomes = [UNKNOWN[0]]
        refs = world.burst(2)
        world.limits.throttled(Limit.RUN_INSTANCES)
        world.later(world.settings.stale_after_s + 1)
        world.sweep.tick()
        world.sweeps(40)
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
                    found = assignments.of_group(tx, group.id, instance_id)
                assert found is not None
                assert found[0].ref == ref

    def test_a_machine_without_a_job_is_refused(self, world: Groups) -> None:
        refs = world.burst(2)
        (group,) = world.groups()
        with world.database.begin() as tx, pytest.raises(Conflict, match="no attempt"):
            assignments.of_group(tx, group.id, "i-0123456789abcdef0")
        with world.database.begin() as tx:
            assert attempts.end(tx, refs[0], Reason.BOOT_DEADLINE, actor="test")
        instance_id = world.attempt(refs[0]).instance_id
        assert instance_id
        with world.database.begin() as tx, pytest.raises(Conflict, match="has ended"):
            assignments.of_group(tx, group.id, instance_id)

    def test_before_the_answer_is_written_down_it_waits(self, world: Groups) -> None:
        world.cloud.outcomes = [Done(UNKNOWN[0])]
        world.burst(2)
        (group,) = world.groups()
        with world.database.begin() as tx:
            assert assignments.of_group(tx, group.id, "i-0123456789abcdef0") is None
            with pytest.raises(NotFound):
                assignments.of_group(tx, UUID(int=7), "i-0123456789abcdef0")

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
            found = assignments.of_group(tx, group.id, ids[0])
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
            assignments.of_group(tx, first.id, instance_id)
