"""The walk over a job's offerings, and one launcher of many."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from atemporal.cloud import (
    CloudError,
    Instance,
    Rejected,
    Throttled,
    Unauthorized,
    Unreachable,
)
from atemporal.cloud.instance import client_token, tags_of
from atemporal.model import AttemptRef, Launch
from atemporal.states import AttemptState, BlockedReason, Reason
from atemporal.store import installation, jobs, launches
from atemporal.store.database import Database
from tests.frozen_clock import freeze
from tests.integration.launching import (
    NO_CAPACITY,
    OVER_QUOTA,
    UNKNOWN,
    A,
    B,
    Done,
    World,
    error,
    gauge,
    offering_of_subnet,
    reaper_sweep,
)


@pytest.fixture(scope="module", autouse=True)
def frozen(database: Database) -> None:
    freeze(database)


@pytest.fixture
def world(database: Database) -> Iterator[World]:
    world = World(database)
    yield world
    world.cloud.real.close()
    with database.begin() as tx:
        tx.execute(text("TRUNCATE jobs, attempts, launch_groups, events, rate_limits CASCADE"))


class TestOfferings:
    def test_one_call_for_one_job(self, world: World) -> None:
        ref = world.launch()
        assert world.cloud.offerings == [("t3.small", A, "on-demand")]
        assert world.cloud.calls[0].token == f"{ref.id}.0"
        assert world.has_instance(ref)

    def test_the_instance_carries_the_installations_id_from_the_intent(self, world: World) -> None:
        world.cloud.script = [NO_CAPACITY]
        ref = world.launch()
        with world.database.begin() as tx:
            ours = installation.identity(tx)
        assert world.attempt(ref).launch.installation == ours
        assert [str(ours) in call.request for call in world.cloud.calls] == [True, True]

    def test_no_capacity_goes_on_to_the_next_offering_with_a_token_of_its_own(
        self, world: World
    ) -> None:
        world.cloud.script = [NO_CAPACITY, NO_CAPACITY]
        ref = world.launch(capacity_type="spot-then-on-demand")
        assert world.cloud.offerings == [
            ("t3.small", A, "spot"),
            ("t3.small", B, "spot"),
            ("t3.small", A, "on-demand"),
        ]
        assert world.cloud.tokens == ["0", "1", "2"]
        assert world.has_instance(ref)
        assert world.attempt(ref).launch.capacity_type == "on-demand"
        assert world.blocked_on(ref) == []

    def test_each_offering_is_recorded_before_it_is_asked_for(self, world: World) -> None:
        stored: list[tuple[int, int, str | None]] = []
        run = world.cloud.run

        def looking(ref: AttemptRef, launch: Launch, user_data: bytes) -> Instance:
            intent = world.attempt(ref).launch
            stored.append((intent.placement, intent.calls, intent.subnet_id))
            return run(ref, launch, user_data)

        world.cloud.run = looking  # type: ignore[method-assign]
        world.cloud.script = [NO_CAPACITY]
        world.launch()
        assert stored == [(0, 1, A), (1, 1, B)]

    @pytest.mark.parametrize("unknown", UNKNOWN)
    def test_never_another_offering_after_an_unknown_outcome(
        self, world: World, unknown: CloudError
    ) -> None:
        world.cloud.script = [unknown] * 4
        ref = world.launch()
        for _ in range(4):
            assert world.attempt(ref).detail is not None
            world.later(30)
            world.sweep.tick()
        assert world.cloud.tokens == ["0"] * 5
        assert len({call.request for call in world.cloud.calls}) == 1
        assert world.has_instance(ref)
        assert world.blocked_on(ref) == ["answer"]

    @pytest.mark.parametrize("unknown", UNKNOWN)
    def test_another_offering_once_the_identical_call_is_refused(
        self, world: World, unknown: CloudError
    ) -> None:
        world.cloud.script = [unknown, NO_CAPACITY]
        ref = world.launch()
        world.later(world.settings.cloud_grace_s + 30)
        world.sweep.tick()
        assert world.cloud.tokens == ["0", "0", "1"]
        assert world.has_instance(ref)

    @pytest.mark.parametrize("leave", [launches.release, launches.postpone])
    def test_what_an_older_release_did_not_say_stays_unsaid_until_the_next_call(
        self, world: World, leave: Callable[..., bool]
    ) -> None:
        world.cloud.script = [UNKNOWN[0]]
        ref = world.launch()
        why: dict[str, Any] = {
            "blocked_on": BlockedReason.KEY,
            "detail": "no key",
            "actor": "test",
        }
        with world.database.begin() as tx:
            tx.execute(text("UPDATE attempts SET launch = launch - 'unsure_at'"))
        launch = world.attempt(ref).launch
        more = why if leave is launches.postpone else {}
        with world.database.begin() as tx:
            assert leave(tx, ref, launch, delay_s=0, stale_s=30, **more)
        kept = world.attempt(ref).launch
        assert "unsure_at" not in kept.model_fields_set
        assert kept == launch

    @pytest.mark.parametrize("refusal", [NO_CAPACITY, OVER_QUOTA])
    def test_an_unknown_outcome_of_an_older_release_is_none_that_is_sure(
        self, world: World, monkeypatch: pytest.MonkeyPatch, refusal: CloudError
    ) -> None:
        world.cloud.script = [Done(UNKNOWN[0]), refusal, refusal]
        ref = world.launch()
        with world.database.begin() as tx:
            tx.execute(text("UPDATE attempts SET launch = launch - 'unsure_at'"))
        monkeypatch.setattr(world.cloud, "find", lambda _ref: [])
        world.later(30)
        world.sweep.tick()
        assert world.cloud.tokens == ["0", "0"], "EC2 may not show yet what it launched"
        monkeypatch.undo()
        world.later(world.settings.cloud_grace_s + 30)
        world.sweep.tick()
        assert set(world.cloud.tokens) == {"0"}
        assert len(world.cloud.instances) == 1
        assert world.has_instance(ref)

    @pytest.mark.parametrize(
        "passing",
        [
            error(Throttled, "RequestLimitExceeded"),
            error(Unauthorized, "AuthFailure"),
            error(Unreachable, "EndpointConnectionError"),
        ],
    )
    def test_after_an_unknown_outcome_other_refusals_prove_nothing(
        self, world: World, passing: CloudError
    ) -> None:
        world.cloud.script = [Done(UNKNOWN[0]), passing, passing]
        ref = world.launch()
        for _ in range(3):
            world.later(60)
            world.sweep.tick()
        assert world.cloud.tokens == ["0"] * 4
        assert len({call.request for call in world.cloud.calls}) == 1
        assert len(world.cloud.instances) == 1
        assert world.has_instance(ref)

    @pytest.mark.parametrize("refusal", [NO_CAPACITY, OVER_QUOTA, error(Rejected, "Invalid")])
    def test_a_refusal_of_the_repeat_is_not_believed_while_the_first_ones_instance_runs(
        self, world: World, refusal: CloudError
    ) -> None:
        world.cloud.script = [Done(UNKNOWN[0]), refusal]
        ref = world.launch()
        world.later(30)
        world.sweep.tick()
        assert world.cloud.tokens == ["0", "0"]
        assert world.attempt(ref).instance_id == world.cloud.all()[0].id

    @pytest.mark.parametrize("refusal", [NO_CAPACITY, OVER_QUOTA])
    def test_what_is_gone_was_launched_too_and_nothing_more_is_asked_for(
        self, world: World, refusal: CloudError
    ) -> None:
        world.cloud.script = [Done(UNKNOWN[0]), refusal]
        ref = world.launch()
        ((token, launched),) = world.cloud.instances.items()
        world.cloud.instances[token] = replace(launched, state="terminated")
        world.later(30)
        world.sweep.tick()
        assert world.attempt(ref).instance_id == launched.id
        assert world.cloud.tokens == ["0", "0"]

    def test_what_an_earlier_placement_launched_and_is_gone_says_nothing_of_this_one(
        self, world: World
    ) -> None:
        world.cloud.script = [NO_CAPACITY, UNKNOWN[0], NO_CAPACITY]
        ref = world.launch()
        token = client_token(ref, 0)
        gone = Instance("i-8", "terminated", client_token=token, tags=tags_of("default", ref))
        world.cloud.instances[token] = gone
        world.later(world.settings.cloud_grace_s)
        world.sweep.tick()
        assert world.cloud.tokens == ["0", "1", "1", "2"]
        assert world.attempt(ref).instance_id == world.cloud.instances[client_token(ref, 2)].id

    def test_a_crash_after_the_call_repeats_it_to_the_byte(self, world: World) -> None:
        world.cloud.script = [Done(UNKNOWN[0])]
        ref = world.launch()
        world.restart()
        # By now the settings are others, too.
        world.launcher._settings = world.settings.model_copy(
            update={"subnets": (B,), "callback_url": "http://elsewhere"}
        )
        world.later(31)
        world.sweep.tick()
        first, second = world.cloud.calls
        assert first == second
        assert len(world.cloud.instances) == 1
        assert world.has_instance(ref)

    def test_a_crash_between_intent_and_answer_is_an_unknown_outcome(self, world: World) -> None:
        class Killed(BaseException):
            pass

        run = world.cloud.run

        def killed(ref: AttemptRef, launch: Launch, user_data: bytes) -> Instance:
            run(ref, launch, user_data)
            raise Killed

        world.cloud.run = killed  # type: ignore[method-assign]
        ref = world.queued()
        with pytest.raises(Killed):
            world.call(ref)
        world.cloud.run = run  # type: ignore[method-assign]
        world.restart()
        # An offering that the new process knows to be unavailable is asked again all the same.
        world.launcher.admission.availability.no_capacity(offering_of_subnet(A), "empty")
        world.later(31)
        world.sweep.tick()
        assert world.cloud.calls[0] == world.cloud.calls[1]
        assert world.has_instance(ref)

    def test_a_launch_written_before_calls_were_counted_is_taken_to_have_been_asked(
        self, world: World
    ) -> None:
        ref = world.queued()
        world.launcher.begin([ref])
        with world.database.begin() as tx:
            tx.execute(text("UPDATE attempts SET launch = launch - 'calls'"))
        world.launcher.admission.availability.no_capacity(offering_of_subnet(A), "empty")
        world.later(31)
        world.sweep.tick()
        assert world.cloud.tokens == ["0"]
        assert world.has_instance(ref)

    def test_with_all_offerings_refused_it_is_blocked_visibly_and_starts_over(
        self, world: World
    ) -> None:
        world.cloud.script = [NO_CAPACITY] * 4
        ref = world.launch()
        assert world.cloud.tokens == ["0", "1"]
        for _ in range(5):
            world.later(30)
            world.sweep.tick()
        assert world.cloud.tokens == ["0", "1"]
        attempt = world.attempt(ref)
        assert attempt.state is AttemptState.LAUNCHING
        assert attempt.blocked_on is BlockedReason.CAPACITY
        assert "InsufficientInstanceCapacity" in (attempt.detail or "")
        assert gauge("atemporal_launches_blocked", reason="capacity") == 1
        assert gauge("atemporal_offerings_unavailable") == 2
        for _ in range(2):
            world.later(181)
            world.sweep.tick()
        assert world.cloud.tokens == ["0", "1", "2", "3", "4"]
        assert world.cloud.offerings[2:] == [
            ("t3.small", A, "on-demand"),
            ("t3.small", B, "on-demand"),
            ("t3.small", A, "on-demand"),
        ]
        assert world.has_instance(ref)
        assert world.blocked_on(ref) == ["capacity"]

    def test_what_never_launched_ends_at_the_deadline_saying_what_blocked_it(
        self, world: World
    ) -> None:
        world.cloud.script = [NO_CAPACITY] * 2
        ref = world.launch()
        world.later(3601)
        reaper_sweep(world)
        attempt = world.attempt(ref)
        assert attempt.reason is Reason.LAUNCH_DEADLINE
        assert "InsufficientInstanceCapacity" in (attempt.detail or "")

    def test_an_offering_in_cooldown_is_skipped_by_other_jobs(self, world: World) -> None:
        world.cloud.script = [NO_CAPACITY]
        world.launch()
        world.launch()
        assert [subnet_id for _, subnet_id, _ in world.cloud.offerings] == [A, B, B]
        world.later(181)
        world.launch()
        assert world.cloud.offerings[-1][1] == A

    def test_with_all_offerings_in_cooldown_the_next_job_is_blocked_without_a_call(
        self, world: World
    ) -> None:
        world.cloud.script = [NO_CAPACITY] * 2
        world.launch()
        ref = world.launch()
        assert len(world.cloud.calls) == 2
        assert world.blocked_on(ref) == ["capacity"]
        world.later(181)
        world.sweep.tick()
        assert world.has_instance(ref)


class TestOneOfMany:
    def test_of_two_launchers_with_the_same_attempt_one_calls(self, world: World) -> None:
        ref = world.queued()
        ((attempt, spec),) = world.launcher.begin([ref])
        world.launcher.call(attempt, spec)
        world.launcher.call(attempt, spec)
        assert len(world.cloud.calls) == 1

    def test_who_read_the_attempt_before_another_called_does_not_call(self, world: World) -> None:
        world.cloud.script = [UNKNOWN[0]]
        ref = world.queued()
        ((attempt, spec),) = world.launcher.begin([ref])
        world.launcher.call(attempt, spec)
        world.launcher.call(attempt, spec)
        assert len(world.cloud.calls) == 1

    @pytest.mark.parametrize("others", [[], [UNKNOWN[0]], [Done(UNKNOWN[1])]])
    def test_a_refusal_that_came_late_does_not_overtake_the_one_who_called_since(
        self, world: World, others: list[CloudError | Done]
    ) -> None:
        run = world.cloud.run

        def frozen(ref: AttemptRef, launch: Launch, user_data: bytes) -> Instance:
            """While this call is under way the lease ends and another launcher repeats it."""
            world.cloud.run = run  # type: ignore[method-assign]
            world.cloud.script = list(others)
            world.later(31)
            world.sweep.tick()
            raise NO_CAPACITY

        world.cloud.run = frozen  # type: ignore[method-assign]
        ref = world.launch()
        assert world.cloud.tokens == ["0"]
        assert world.attempt(ref).launch.placement == 0
        world.later(31)
        world.sweep.tick()
        assert set(world.cloud.tokens) == {"0"}
        assert world.has_instance(ref)

    def test_who_lost_its_lease_in_a_freeze_does_not_call(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ask = launches.ask

        def slow(*arguments: Any) -> Launch | None:
            asked = ask(*arguments)
            world.now += 31
            return asked

        monkeypatch.setattr(launches, "ask", slow)
        world.launch()
        assert world.cloud.calls == []

    def test_a_cancel_between_begin_and_call_stops_the_call(self, world: World) -> None:
        ref = world.queued()
        ((attempt, spec),) = world.launcher.begin([ref])
        with world.database.begin() as tx:
            jobs.cancel(tx, ref.job_id, actor="op")
        world.launcher.call(attempt, spec)
        assert world.cloud.calls == []
