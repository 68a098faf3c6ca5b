"""The launcher's steps on a real Postgres, against a cloud that answers by a script.

The cloud knows what EC2 knows: a token that launched something gives that instance again. The script
says how the next calls go; time passes when a test says so.
"""

from __future__ import annotations

import ast
import base64
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, text

from atemporal.broker import Link, Outgoing
from atemporal.cloud import (
    CloudError,
    Forbidden,
    NoCapacity,
    Rejected,
    Throttled,
    TokenMismatch,
    TokenSpent,
    Unauthorized,
    Unreachable,
)
from atemporal.errors import Unavailable
from atemporal.limits import Limit
from atemporal.messages import LAUNCH, JobDue
from atemporal.model import AttemptRef, JobSpec
from atemporal.states import AttemptState, BlockedReason, JobState, Reason
from atemporal.store import attempts, jobs, launches
from atemporal.store.database import Database
from atemporal.store.rate_limits import LAG_S
from services.launcher import launcher
from services.launcher.launch import LaunchLoop
from tests.claims import claim_due
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


class TestQuota:
    def test_another_subnet_does_not_help_the_other_capacity_type_does(self, world: World) -> None:
        world.cloud.script = [OVER_QUOTA]
        ref = world.launch(capacity_type="spot-then-on-demand")
        assert world.cloud.offerings == [("t3.small", A, "spot"), ("t3.small", A, "on-demand")]
        assert world.has_instance(ref)

    def test_a_full_quota_blocks_visibly_instead_of_failing(self, world: World) -> None:
        world.cloud.script = [OVER_QUOTA] * 3
        ref = world.launch()
        for _ in range(3):
            assert len(world.cloud.calls) == len(set(world.cloud.tokens))
            assert "your limit is 5" in (world.attempt(ref).detail or "")
            world.later(61)
            world.sweep.tick()
        assert len(world.cloud.calls) == 4
        assert world.has_instance(ref)
        assert world.blocked_on(ref) == ["quota"]


class TestRateLimiter:
    def test_a_throttled_call_halves_our_rate_and_is_repeated(self, world: World) -> None:
        world.cloud.script = [error(Throttled, "RequestLimitExceeded")]
        ref = world.launch()
        assert world.limits.pace(Limit.RUN_INSTANCES) == 0.5
        assert world.launcher.room() == 0
        assert world.blocked_on(ref) == ["throttle"]
        world.sweep.tick()
        assert len(world.cloud.calls) == 1
        world.later(2)  # soon, not after the whole time of a stale lease
        world.sweep.tick()
        assert world.cloud.tokens == ["0", "0"]
        assert world.has_instance(ref)

    def test_without_tokens_attempts_stay_launching_and_go_on_as_tokens_come(
        self, world: World
    ) -> None:
        refs = [world.launch() for _ in range(8)]
        assert len(world.cloud.calls) == 5
        assert [world.attempt(ref).state for ref in refs[5:]] == [AttemptState.LAUNCHING] * 3
        assert 0 < world.sweep.tick() <= LAG_S + 1
        world.later(LAG_S + 0.5)
        assert world.sweep.tick() <= 1
        assert len(world.cloud.calls) == 6
        world.later(1.0)
        world.sweep.tick()
        assert all(world.has_instance(ref) for ref in refs)

    def test_no_more_is_taken_up_than_may_be_called(self, world: World) -> None:
        refs = [world.queued() for _ in range(7)]
        world.later(31)
        world.sweep.tick()
        states = [world.job(ref).state for ref in refs]
        assert states.count(JobState.WARMING) == 5
        assert states.count(JobState.QUEUED) == 2


class TestArchitectures:
    """A job's image is for the processors of its machine."""

    @pytest.mark.parametrize(("found", "image"), [("ami-2", "ami-2"), (None, "ami-1")])
    def test_each_job_gets_the_image_for_its_type_or_ec2s_word_that_there_is_none(
        self, world: World, found: str | None, image: str
    ) -> None:
        world.cloud.arm64_image = found
        usual, arm, after = (
            world.launch(instance_types=list(types))
            for types in ((), ("m7g.large", "c7g.large"), ("t3.small",))
        )
        images = [world.attempt(ref).launch.image_id for ref in (usual, arm, after)]
        assert images == ["ami-1", image, "ami-1"]
        assert all(world.has_instance(ref) for ref in (usual, arm, after))

    def test_jobs_of_both_are_begun_together(self, world: World) -> None:
        world.cloud.arm64_image = "ami-2"
        refs = [
            world.queued(instance_types=list(types)) for types in (("m7g.large",), ("t3.small",))
        ]
        begun = world.launcher.begin(refs)
        assert len(begun) == 2
        assert [world.attempt(ref).launch.image_id for ref in refs] == ["ami-2", "ami-1"]


class TestDelivery:
    @pytest.mark.parametrize("meant", ["claim", "inline"])
    def test_a_repeated_call_is_the_same_also_if_it_would_be_delivered_otherwise_now(
        self, world: World, monkeypatch: pytest.MonkeyPatch, meant: str
    ) -> None:
        """The agent of another release may be larger, or smaller."""
        monkeypatch.setattr("atemporal.intent.delivery_of", lambda _: meant)
        world.cloud.script = [Done(UNKNOWN[0])]
        ref = world.launch()
        assert world.attempt(ref).launch.delivery == meant
        monkeypatch.setattr("atemporal.intent.delivery_of", lambda _: "neither")
        world.later(30)
        world.restart()
        world.sweep.tick()
        first, second = world.cloud.calls
        assert first == second
        assert world.has_instance(ref)

    def test_with_a_secret_it_goes_by_claim_though_its_intent_says_inline(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A launcher of the release before wrote it, and never called."""
        monkeypatch.setattr("atemporal.intent.delivery_of", lambda _: "inline")
        ref = world.queued(secrets={"PASSWORD": "hush-hush"})
        world.launcher.begin([ref])
        assert world.attempt(ref).launch.delivery == "inline"
        world.later(30)
        world.restart()
        world.sweep.tick()
        assert world.attempt(ref).launch.delivery == "claim"
        assert world.has_instance(ref)
        (call,) = world.cloud.calls
        user_data = ast.literal_eval(call.request)["UserData"]
        found = re.search(rb"content: (\S+)\n", user_data)
        assert found
        manifest = base64.b64decode(found[1])
        assert b"/attempts/1/machine\0" in manifest
        assert b"hush-hush" not in manifest

    @pytest.mark.parametrize("profile", [None, "jobs"])
    def test_secrets_by_reference_are_for_instances_with_a_role(
        self, world: World, profile: str | None
    ) -> None:
        """A schedule has them, and the settings have changed since it was made."""
        world.settings = world.settings.model_copy(update={"instance_profile": profile})
        world.restart()
        ref = world.queued(secret_refs={"PASSWORD": "ssm:/jobs/password"})
        world.call(ref)
        attempt = world.attempt(ref)
        assert world.has_instance(ref) == bool(profile)
        if profile:
            assert attempt.launch.delivery == "claim"
        else:
            assert attempt.reason is Reason.LAUNCH_REFUSED
            assert "ATEMPORAL_INSTANCE_PROFILE" in (attempt.detail or "")


class TestWrongImage:
    """The settings name an image on which nothing would end the machine."""

    def test_nothing_is_asked_for_and_the_job_says_why_it_waits(self, world: World) -> None:
        world.cloud.wrong_images = {"ami-1"}
        first = world.launch()
        second = world.launch()
        world.sweep.tick()
        assert world.cloud.calls == []
        attempt = world.attempt(first)
        assert attempt.state is AttemptState.LAUNCHING
        assert world.blocked_on(first) == ["authorization"]
        assert "image ami-1 is not flatcar" in (attempt.detail or "")
        assert "ATEMPORAL_IMAGE_ID" in (attempt.detail or "")
        assert world.job(second).state is JobState.QUEUED
        with pytest.raises(Unavailable, match="image ami-1 is not flatcar"):
            world.launcher.check()

    def test_the_operator_is_told_once(
        self, world: World, capsys: pytest.CaptureFixture[str]
    ) -> None:
        world.cloud.wrong_images = {"ami-1"}
        world.launch()
        for _ in range(3):
            world.later(400)
            world.sweep.tick()
        assert capsys.readouterr().out.count("launches wait") == 1

    @pytest.mark.parametrize("refusals", [1, 3])
    def test_once_the_settings_name_another_image_the_same_attempt_gets_it(
        self, world: World, refusals: int
    ) -> None:
        world.cloud.wrong_images = {"ami-1"}
        ref = world.launch()
        for _ in range(refusals - 1):
            world.later(400)
            world.sweep.tick()
        world.cloud.image = "ami-2"
        world.restart()
        world.later(400)
        world.sweep.tick()
        assert world.has_instance(ref)
        assert world.attempt(ref).launch.image_id == "ami-2"
        assert "ami-2" in world.cloud.calls[0].request
        assert not world.launcher.admission.circuit_breaker.is_open

    def test_another_wrong_image_is_not_launched_either(self, world: World) -> None:
        world.cloud.wrong_images = {"ami-1", "ami-2"}
        ref = world.launch()
        world.cloud.image = "ami-2"
        world.restart()
        world.later(400)
        world.sweep.tick()
        assert world.cloud.calls == []
        assert "image ami-2 is not flatcar" in (world.attempt(ref).detail or "")

    @pytest.mark.parametrize("unknown", UNKNOWN)
    def test_what_a_call_may_have_launched_keeps_its_image(
        self, world: World, unknown: CloudError
    ) -> None:
        world.cloud.script = [unknown]
        ref = world.launch()
        world.cloud.wrong_images = {"ami-1"}
        world.cloud.image = "ami-2"
        world.later(60)
        world.sweep.tick()
        assert world.cloud.tokens == ["0"]
        launch = world.attempt(ref).launch
        assert (launch.image_id, launch.placement) == ("ami-1", 0)
        assert launch.unsure_at is not None

    def test_an_attempt_with_an_old_image_holds_nobody_up_and_gets_the_new_one_in_the_end(
        self, world: World
    ) -> None:
        world.cloud.script = [UNKNOWN[0]]
        ref = world.launch()
        world.cloud.wrong_images = {"ami-1"}
        world.cloud.image = "ami-2"
        world.restart()
        world.later(60)
        world.sweep.tick()
        assert world.blocked_on(ref) == ["answer"]
        assert not world.launcher.admission.circuit_breaker.is_open
        other = world.launch()
        assert world.has_instance(other)
        # By now EC2 would show what the first call launched.
        world.later(world.settings.cloud_grace_s)
        world.sweep.tick()
        assert world.has_instance(ref)
        assert world.attempt(ref).launch.image_id == "ami-2"

    def test_an_image_that_can_not_be_looked_up_changes_nothing(self, world: World) -> None:
        world.cloud.wrong_images = {"ami-1"}
        ref = world.launch()
        world.cloud.image_error = error(Unreachable, "ReadTimeoutError")
        world.restart()
        world.later(400)
        world.sweep.tick()
        assert world.cloud.calls == []
        assert world.attempt(ref).launch.image_id == "ami-1"


class TestCircuitBreaker:
    def test_one_refusal_stops_all_calls_and_jobs_stay_queued(self, world: World) -> None:
        world.cloud.script = [error(Unauthorized, "UnauthorizedOperation")]
        first = world.launch()
        second = world.launch()
        world.sweep.tick()
        assert len(world.cloud.calls) == 1
        assert world.attempt(first).state is AttemptState.LAUNCHING
        assert world.blocked_on(first) == ["authorization"]
        assert world.job(second).state is JobState.QUEUED
        assert gauge("atemporal_launch_circuit_breaker_open") == 1

    def test_one_probe_closes_it_and_the_rest_follow(self, world: World) -> None:
        refs = [world.queued() for _ in range(3)]
        begun = world.launcher.begin(refs)
        world.cloud.script = [error(Unauthorized, "AuthFailure")]
        for attempt, spec in begun:
            world.launcher.call(attempt, spec)
        assert len(world.cloud.calls) == 1
        world.later(6)
        assert world.launcher.room() == 1
        world.sweep.tick()
        assert len(world.cloud.calls) == 2
        assert not world.launcher.admission.circuit_breaker.is_open
        world.sweep.tick()
        assert all(world.has_instance(ref) for ref in refs)
        assert gauge("atemporal_launch_circuit_breaker_open") == 0

    def test_a_refused_probe_begins_a_longer_pause(self, world: World) -> None:
        world.cloud.script = [error(Unauthorized, "AuthFailure")] * 2
        world.launch()
        pause = world.launcher.admission.circuit_breaker.ready_in()
        world.later(6)
        world.sweep.tick()
        assert len(world.cloud.calls) == 2
        assert world.launcher.admission.circuit_breaker.ready_in() == 2 * pause

    def test_what_one_job_may_not_have_holds_up_no_other(self, world: World) -> None:
        assert world.has_instance(world.launch())
        world.cloud.script = [error(Forbidden, "UnauthorizedOperation")]
        ref = world.launch(instance_types=["p5.48xlarge"], subnets=[A])
        assert world.blocked_on(ref) == ["authorization"]
        assert "p5.48xlarge" in (world.attempt(ref).detail or "")
        assert not world.launcher.admission.circuit_breaker.is_open
        assert world.has_instance(world.launch())
        world.later(400)
        world.sweep.tick()  # asked again, in case somebody has changed the policy
        assert world.has_instance(ref)

    def test_the_next_offering_is_asked_where_a_policy_forbids_the_first(
        self, world: World
    ) -> None:
        refused = "AuthFailure.ServiceLinkedRoleCreationNotPermitted"
        world.cloud.script = [error(Forbidden, refused)]
        ref = world.launch(capacity_type="spot-then-on-demand", subnets=[A])
        assert world.has_instance(ref)
        assert world.attempt(ref).launch.capacity_type == "on-demand"
        assert not world.launcher.admission.circuit_breaker.is_open

    def test_a_job_that_may_not_does_not_take_the_probe_of_the_others(self, world: World) -> None:
        world.cloud.script = [error(Forbidden, "UnauthorizedOperation")]
        world.launch(instance_types=["p5.48xlarge"], subnets=[A])
        assert world.launcher.admission.circuit_breaker.is_open, "nothing has been let in yet"
        healthy = world.queued()
        world.later(60)
        world.sweep.tick()
        assert world.has_instance(healthy)
        assert not world.launcher.admission.circuit_breaker.is_open

    def test_a_policy_that_forbids_everything_opens_it(self, world: World) -> None:
        assert world.has_instance(world.launch(instance_types=["t3.small"], subnets=[A]))
        world.cloud.script = [error(Forbidden, "UnauthorizedOperation")] * 2
        world.launch(instance_types=["t3.small", "t3.large"], subnets=[A])
        assert world.launcher.admission.circuit_breaker.is_open

    def test_a_refused_look_for_the_image_opens_it_too_and_begins_nothing(
        self, world: World
    ) -> None:
        world.cloud.image_error = error(Unauthorized, "UnauthorizedOperation")
        ref = world.queued()
        with pytest.raises(Unauthorized):
            world.launcher.begin([ref])
        assert world.job(ref).state is JobState.QUEUED
        assert world.launcher.admission.circuit_breaker.is_open
        world.cloud.image_error = None
        world.later(31)
        world.sweep.tick()  # with nothing begun, a queued job is the probe
        assert world.has_instance(ref)
        assert not world.launcher.admission.circuit_breaker.is_open


class TestNeverBooted:
    """Machines that come up and can not reach the API are paid for until their boot deadline."""

    def never_boots(self, world: World, reason: Reason = Reason.BOOT_DEADLINE) -> AttemptRef:
        ref = world.launch()
        with world.database.begin() as tx:
            assert attempts.end(tx, ref, reason, actor="reaper")
        world.later(1)  # for the rate limiter
        return ref

    def test_machines_that_never_boot_are_tried_one_at_a_time_and_the_other_jobs_stay_queued(
        self, world: World
    ) -> None:
        for _ in range(5):
            self.never_boots(world)
        first = world.launch()
        assert world.has_instance(first)
        waiting = world.launch()
        assert world.job(waiting).state is JobState.QUEUED
        assert gauge("atemporal_machines_not_booting") == 1
        with world.database.begin() as tx:
            attempts.booted(tx, first, actor="api")
        world.later(60)
        world.sweep.tick()
        assert world.has_instance(waiting)
        assert gauge("atemporal_machines_not_booting") == 0

    def test_one_blocked_on_capacity_does_not_count_as_the_one_that_is_tried(
        self, world: World
    ) -> None:
        world.cloud.script = [error(NoCapacity, "InsufficientInstanceCapacity")]
        waiting = world.launch(instance_types=["p5.48xlarge"], subnets=[A])
        assert world.blocked_on(waiting) == ["capacity"]
        for _ in range(5):
            self.never_boots(world)
        assert world.has_instance(world.launch())

    def test_while_no_job_may_begin_one_that_was_begun_is_the_probe(self, world: World) -> None:
        world.cloud.script = [error(NoCapacity, "InsufficientInstanceCapacity")]
        begun = world.launch(instance_types=["p5.48xlarge"], subnets=[A])
        for _ in range(5):
            self.never_boots(world)
        assert world.has_instance(world.launch()), "the one that is tried"
        world.queued()
        world.launcher.admission.circuit_breaker.open("AuthFailure")
        world.later(400)
        world.sweep.tick()
        assert world.has_instance(begun)
        assert not world.launcher.admission.circuit_breaker.is_open

    def test_the_next_is_tried_when_the_one_that_was_has_ended(self, world: World) -> None:
        for _ in range(5):
            self.never_boots(world)
        self.never_boots(world)
        assert world.has_instance(world.launch())

    @pytest.mark.parametrize("other", [Reason.PULL_FAILED, Reason.INSTANCE_LOST])
    def test_another_ending_among_them_or_fewer_prove_nothing(
        self, world: World, other: Reason
    ) -> None:
        for reason in [Reason.BOOT_DEADLINE] * 2 + [other] + [Reason.BOOT_DEADLINE] * 3:
            self.never_boots(world, reason)
        assert all(world.has_instance(world.launch()) for _ in range(2))

    def test_endings_of_long_ago_do_not_count(self, world: World) -> None:
        for _ in range(5):
            self.never_boots(world)
        world.later(6 * world.settings.boot_deadline_s)
        assert all(world.has_instance(world.launch()) for _ in range(2))


class TestRejected:
    def test_a_final_refusal_ends_the_attempt_with_ec2s_words_and_no_retry(
        self, world: World
    ) -> None:
        world.cloud.script = [error(Rejected, "InvalidAMIID.NotFound", "no such image")]
        ref = world.launch()
        attempt = world.attempt(ref)
        assert attempt.reason is Reason.LAUNCH_REFUSED
        assert "InvalidAMIID.NotFound: no such image" in (attempt.detail or "")
        assert world.job(ref).state is JobState.FINISHED

    @pytest.mark.parametrize("refusal", [NO_CAPACITY, OVER_QUOTA, error(Rejected, "Invalid")])
    def test_what_an_earlier_call_launched_unseen_is_waited_for_and_adopted(
        self, world: World, monkeypatch: pytest.MonkeyPatch, refusal: CloudError
    ) -> None:
        world.cloud.script = [Done(UNKNOWN[0]), refusal, refusal]
        ref = world.launch()
        with monkeypatch.context() as patch:
            patch.setattr(world.cloud, "find", lambda _ref: [])  # too young to be listed
            world.later(30)
            world.sweep.tick()
        assert world.attempt(ref).state is AttemptState.LAUNCHING
        assert world.attempt(ref).blocked_on is BlockedReason.ANSWER
        assert world.cloud.tokens == ["0", "0"], "no other offering is asked meanwhile"
        world.later(world.settings.cloud_grace_s * 2)
        world.sweep.tick()
        assert world.attempt(ref).instance_id == world.cloud.all()[0].id
        assert len(world.cloud.instances) == 1

    def test_a_refusal_is_believed_once_ec2_would_show_what_was_launched(
        self, world: World
    ) -> None:
        world.cloud.script = [UNKNOWN[0], NO_CAPACITY, NO_CAPACITY]
        ref = world.launch(subnets=[A, B])
        world.later(30)
        world.sweep.tick()
        assert world.cloud.tokens == ["0", "0"]
        world.later(world.settings.cloud_grace_s * 2)
        world.sweep.tick()
        assert world.cloud.tokens == ["0", "0", "0", "1"]
        assert world.has_instance(ref)

    def test_a_throttled_call_has_launched_nothing_so_the_next_refusal_is_believed(
        self, world: World
    ) -> None:
        world.cloud.script = [error(Throttled, "RequestLimitExceeded"), NO_CAPACITY]
        ref = world.launch(subnets=[A, B])
        world.later(30)
        world.sweep.tick()
        assert world.cloud.tokens == ["0", "0", "1"]
        assert world.has_instance(ref)

    def test_a_token_known_with_other_parameters_adopts_what_lives(self, world: World) -> None:
        world.cloud.script = [
            Done(UNKNOWN[0]),
            error(TokenMismatch, "IdempotentParameterMismatch"),
        ]
        ref = world.launch()
        world.later(30)
        world.sweep.tick()
        assert world.attempt(ref).instance_id == world.cloud.all()[0].id

    def test_a_spent_token_without_an_instance_ends_the_attempt(self, world: World) -> None:
        world.cloud.script = [error(TokenSpent, "IdempotentInstanceTerminated")]
        ref = world.launch()
        assert world.attempt(ref).reason is Reason.INSTANCE_LOST


class TestSpotBreaker:
    def interrupted(self, world: World, end_code: str = "Server.SpotInstanceTermination") -> None:
        ref = world.launch(capacity_type="spot", subnets=[A])
        with world.database.begin() as tx:
            attempts.end(tx, ref, Reason.INSTANCE_LOST, actor="reaper", end_code=end_code)

    def test_a_pool_that_interrupts_twice_is_left_alone_also_after_a_restart(
        self, world: World
    ) -> None:
        self.interrupted(world)
        world.later(600)
        self.interrupted(world)
        world.restart()
        fallback = world.launch(capacity_type="spot-then-on-demand", subnets=[A])
        other = world.launch(capacity_type="spot", subnets=[A, B])
        waiting = world.launch(capacity_type="spot", subnets=[A])
        assert world.cloud.offerings[2:] == [("t3.small", A, "on-demand"), ("t3.small", B, "spot")]
        assert world.has_instance(fallback)
        assert world.has_instance(other)
        assert world.blocked_on(waiting) == ["interruptions"]
        world.later(1801)
        world.sweep.tick()
        assert world.has_instance(waiting)
        assert world.cloud.offerings[-1] == ("t3.small", A, "spot")

    def test_other_losses_do_not_count(self, world: World) -> None:
        for _ in range(2):
            self.interrupted(world, end_code="Server.InternalError")
        ref = world.launch(capacity_type="spot", subnets=[A])
        assert world.has_instance(ref)

    def test_every_code_for_an_instance_taken_back_counts(self, world: World) -> None:
        for _ in range(2):
            self.interrupted(world, end_code="Server.SpotInstanceShutdown")
        ref = world.launch(capacity_type="spot", subnets=[A])
        assert world.blocked_on(ref) == ["interruptions"]

    def test_far_apart_they_do_not_count(self, world: World) -> None:
        self.interrupted(world)
        world.later(901)
        self.interrupted(world)
        assert world.has_instance(world.launch(capacity_type="spot", subnets=[A]))

    def test_the_records_are_read_through_an_index(self, world: World) -> None:
        with world.database.begin() as tx:
            tx.execute(text("SET LOCAL enable_seqscan = off"))
            plan = tx.execute(text(f"EXPLAIN {launches._SPOT_LOST.text}"), {"within_s": 1})
            assert "ix_attempts_spot_lost" in " ".join(row[0] for row in plan)


class TestShortages:
    """EC2 granted an instance and had no room for it after all; the reaper has written that down."""

    def no_room(
        self, world: World, code: str = "Server.InsufficientInstanceCapacity", **machine: Any
    ) -> AttemptRef:
        ref = world.launch(**machine)
        with world.database.begin() as tx:
            attempts.end(
                tx, ref, Reason.NO_CAPACITY, actor="reaper", end_code=code, patience_s=3600
            )
        return ref

    def test_the_next_attempt_begins_at_the_next_offering_also_after_a_restart(
        self, world: World
    ) -> None:
        ref = self.no_room(world)
        world.restart()
        with world.database.begin() as tx:
            tx.execute(text("UPDATE jobs SET due_at = now()"))
            (again,) = claim_due(tx, 10, actor="test")
        assert again == AttemptRef(ref.job_id, 2)
        world.call(again)
        assert world.cloud.offerings == [
            ("t3.small", A, "on-demand"),
            ("t3.small", B, "on-demand"),
        ]
        assert world.has_instance(again)

    def test_without_another_offering_it_is_blocked_until_the_cooldown_is_over(
        self, world: World
    ) -> None:
        self.no_room(world, subnets=[A])
        ref = world.launch(subnets=[A])
        assert world.blocked_on(ref) == ["capacity"]
        world.later(world.settings.capacity_cooldown_s + 60)
        world.sweep.tick()
        assert world.has_instance(ref)

    def test_a_limit_of_the_account_blocks_as_a_quota(self, world: World) -> None:
        self.no_room(world, "Client.VolumeLimitExceeded")
        assert world.blocked_on(world.launch()) == ["quota"]

    def test_the_records_are_read_through_an_index(self, world: World) -> None:
        with world.database.begin() as tx:
            tx.execute(text("SET LOCAL enable_seqscan = off"))
            plan = tx.execute(text(f"EXPLAIN {launches._SHORTAGES.text}"), {"within_s": 1})
            assert "ix_attempts_no_capacity" in " ".join(row[0] for row in plan)


class TestLoop:
    @pytest.fixture
    def link(self, broker_url: str) -> Iterator[Link]:
        link = Link(broker_url, name="test")
        link.connect()
        yield link
        link.close()

    @pytest.fixture
    def loop(self, world: World, broker_url: str, link: Link) -> Iterator[LaunchLoop]:
        loop = LaunchLoop(world.launcher, Link(broker_url, name="launch"))
        yield loop
        loop.reset()
        while batch := link.receive(LAUNCH, limit=100, timeout_s=0.2):
            link.ack(batch)

    def send(self, link: Link, *refs: AttemptRef) -> None:
        link.publish([Outgoing.of(JobDue(job_id=ref.job_id, attempt=ref.number)) for ref in refs])

    def test_a_burst_is_begun_as_the_rate_limiter_allows_and_the_rest_stays_queued(
        self, world: World, loop: LaunchLoop, link: Link
    ) -> None:
        refs = [world.queued() for _ in range(8)]
        self.send(link, *refs)
        while len(world.cloud.calls) < 5:
            loop.tick()
        assert 0 < loop.tick() <= 1
        states = [world.job(ref).state for ref in refs]
        assert (states.count(JobState.WARMING), states.count(JobState.QUEUED)) == (5, 3)
        world.later(5)
        while len(world.cloud.calls) < 8:
            loop.tick()
        assert all(world.has_instance(ref) for ref in refs)

    def test_what_waits_already_comes_before_new_messages(
        self, world: World, loop: LaunchLoop, link: Link
    ) -> None:
        old = [world.launch() for _ in range(6)][-1]
        self.send(link, world.queued())
        world.later(LAG_S + 0.5)
        loop.tick()
        assert world.has_instance(old)
        assert len(world.cloud.calls) == 6

    def test_while_the_circuit_breaker_is_open_it_is_not_ready_and_messages_wait_for_others(
        self, world: World, loop: LaunchLoop, link: Link
    ) -> None:
        world.cloud.script = [error(Unauthorized, "AuthFailure")]
        world.launch()
        self.send(link, world.queued())
        with pytest.raises(Unavailable, match="AuthFailure"):
            loop.tick()
        loop.reset()
        (waiting,) = link.receive(LAUNCH, limit=10, timeout_s=5)
        link.ack([waiting])


class TestLarge:
    """Environments of which few fit into memory together."""

    ENV = "e" * 1000

    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(launcher, "LARGEST", 2 * len(self.ENV))

    @pytest.fixture
    def read(self, world: World, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """How many specifications each begin has read."""
        found: list[int] = []
        lock_queued = jobs.lock_queued

        def counted(tx: Connection, refs: Sequence[AttemptRef]) -> dict[AttemptRef, JobSpec]:
            queued = lock_queued(tx, refs)
            found.append(len(queued))
            return queued

        monkeypatch.setattr(jobs, "lock_queued", counted)
        return found

    def queued(self, world: World, many: int) -> list[AttemptRef]:
        refs = [world.queued() for _ in range(many)]
        enlarge = text(
            "UPDATE jobs SET spec = jsonb_set(spec, '{env,A}', to_jsonb(CAST(:env AS text)))"
        )
        with world.database.begin() as tx:
            tx.execute(enlarge, {"env": self.ENV})
        return refs

    def begun(self, world: World) -> list[AttemptRef]:
        """Those that EC2 was asked for, in the order of the calls."""
        refs = [one.ref for one in world.cloud.instances.values()]
        return [ref for ref in refs if ref is not None]

    def test_messages_are_worked_on_in_parts_in_their_order(
        self, world: World, broker_url: str, read: list[int]
    ) -> None:
        refs = self.queued(world, 5)
        refs = [refs[number] for number in (4, 0, 2, 1, 3)]
        assert world.launcher.parts(refs) == [refs[:2], refs[2:4], refs[4:]]
        link = Link(broker_url, name="test")
        link.connect()
        link.publish([Outgoing.of(JobDue(job_id=ref.job_id, attempt=ref.number)) for ref in refs])
        loop = LaunchLoop(world.launcher, link)
        while len(world.cloud.calls) < 5:
            loop.tick()
        loop.reset()
        assert max(read) <= 2
        assert sorted(self.begun(world)) == sorted(refs)

    def test_a_sweep_stops_at_the_bound_and_the_next_goes_on_at_once(
        self, world: World, read: list[int]
    ) -> None:
        refs = self.queued(world, 5)
        for number, ref in enumerate(reversed(refs)):
            age = text(
                "UPDATE jobs SET updated_at = now() - make_interval(secs => :s) WHERE id = :id"
            )
            with world.database.begin() as tx:
                tx.execute(age, {"s": 100 - number, "id": ref.job_id})
        for many in (2, 4, 5):
            assert world.sweep.tick() < 1 or many == 5
            assert sorted(self.begun(world)) == sorted(refs[5 - many :])
        assert read == [2, 2, 1]

    def test_intents_that_were_left_are_taken_up_in_parts_the_oldest_first(
        self, world: World
    ) -> None:
        refs = self.queued(world, 5)
        for ref in refs:
            world.launcher.begin([ref])
            world.later(1)
        world.later(60)
        for many in (2, 4, 5):
            assert world.sweep.tick() < 1 or many == 5
            assert sorted(self.begun(world)) == sorted(refs[:many])


class TestUnreadable:
    def test_a_row_that_can_not_be_read_is_leased_and_the_others_are_launched(
        self, world: World
    ) -> None:
        refs = [world.queued() for _ in range(4)]
        world.launcher.begin(refs[:2])
        with world.database.begin() as tx:
            for ref in (refs[0], refs[2]):
                tx.execute(text("UPDATE jobs SET spec = '{}' WHERE id = :id"), {"id": ref.job_id})
        world.later(60)
        world.sweep.tick()
        assert world.has_instance(refs[1])
        assert world.has_instance(refs[3])
        # Not again at once: it is leased like any other.
        with world.database.begin() as tx:
            assert attempts.lease_unlaunched(tx, stale_s=30, limit=9) == []
            assert jobs.overlooked(tx, stale_s=30, limit=9) == []
