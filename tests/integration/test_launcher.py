"""The launcher's steps on a real Postgres, against a cloud that answers by a script.

The cloud knows what EC2 knows: a token that launched something gives that instance again. The script
says how the next calls go; time passes when a test says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text

from atemporal import settings as settings_module
from atemporal.broker import Link, Outgoing
from atemporal.cloud import (
    Cloud,
    CloudError,
    Forbidden,
    Instance,
    NoAnswer,
    NoCapacity,
    OverQuota,
    Rejected,
    ServerFault,
    Throttled,
    TokenMismatch,
    TokenSpent,
    Unauthorized,
    Unreachable,
    WrongImage,
)
from atemporal.cloud.instance import tags_of
from atemporal.errors import Unavailable
from atemporal.fleet.plan import Limits
from atemporal.limits import Limit
from atemporal.messages import LAUNCH, JobDue
from atemporal.model import Attempt, AttemptRef, Event, Job, Launch, parse_spec
from atemporal.rate_limits import RateLimits
from atemporal.settings import Settings
from atemporal.states import AttemptState, BlockedReason, JobState, Reason
from atemporal.store import attempts, events, installation, jobs, launches
from atemporal.store.database import Database
from atemporal.store.rate_limits import LAG_S
from services.launcher.launch import LaunchLoop
from services.launcher.launcher import Launcher
from services.launcher.offerings import Offering
from services.launcher.sweep import SweepLoop
from services.reaper.reaper import Reaper
from services.reaper.sweep import SweepLoop as ReaperSweep
from tests.frozen_clock import advance, freeze

A, B = "subnet-0aaaaaaaaaaaaaaaa", "subnet-0bbbbbbbbbbbbbbbb"


@dataclass(frozen=True)
class Call:
    """One RunInstances call as EC2 would see it."""

    token: str
    request: str
    offering: tuple[str, str | None, str]


@dataclass(frozen=True)
class Done:
    """An outcome for the script: the instance is launched, yet the caller gets `error`."""

    error: CloudError


@dataclass
class ScriptedCloud:
    """EC2: takes the next outcome off the script; without one it launches.

    What it is asked with is the very request that the real adapter would send.
    """

    real: Cloud
    script: list[CloudError | Done] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    instances: dict[str, Instance] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    image_error: CloudError | None = None
    image: str = "ami-1"
    wrong_images: set[str] = field(default_factory=set)
    throttled: Callable[[], None] = lambda: None

    def resolve_image(self) -> str:
        if self.image_error:
            raise self.image_error
        return self.image

    def run(self, ref: AttemptRef, launch: Launch, user_data: bytes) -> Instance:
        if launch.image_id in self.wrong_images:
            raise WrongImage("launching", "WrongImage", f"image {launch.image_id} is not flatcar")
        request = self.real._request(ref, launch, user_data)
        token = request["ClientToken"]
        offering = (launch.instance_type, launch.subnet_id, launch.capacity_type)
        self.calls.append(Call(token, repr(request), offering))
        outcome = self.script.pop(0) if self.script else None
        if isinstance(outcome, CloudError):
            if isinstance(outcome, Throttled):
                self.throttled()
            raise outcome
        if token not in self.instances:
            self.instances[token] = Instance(
                id=f"i-{len(self.instances):017x}",
                state="running",
                launched_at=datetime.now(UTC),
                client_token=token,
                tags=tags_of("default", ref),
            )
        if outcome:
            raise outcome.error
        return self.instances[token]

    def find(self, ref: AttemptRef) -> list[Instance]:
        return [one for one in self.instances.values() if one.ref == ref]

    def all(self) -> list[Instance]:
        return list(self.instances.values())

    def terminate(self, ids: list[str], **_: bool) -> dict[str, CloudError]:
        self.ended += ids
        for token, one in self.instances.items():
            if one.id in ids:
                self.instances[token] = replace(one, state="terminated")
        return {}

    def console(self, _instance_id: str, *, live: bool = True) -> str:
        return ""

    @property
    def tokens(self) -> list[str]:
        """The placements asked for, in order."""
        return [call.token.rpartition(".")[2] for call in self.calls]

    @property
    def offerings(self) -> list[tuple[str, str | None, str]]:
        return [call.offering for call in self.calls]


def error(kind: type[CloudError], code: str = "Code", words: str = "EC2's words") -> CloudError:
    return kind("launching", code, words)


UNKNOWN = [error(NoAnswer, "ReadTimeoutError"), error(ServerFault, "InternalError")]
NO_CAPACITY = error(NoCapacity, "InsufficientInstanceCapacity")
OVER_QUOTA = error(OverQuota, "VcpuLimitExceeded", "your limit is 5")


class World:
    """The launcher with its cloud, its database and its clock; `restart` is a crash."""

    def __init__(self, database: Database, **settings: Any) -> None:
        self.database = database
        self.now = 1000.0
        # Who waits for a token finds none, unless a test lets time pass.
        self.pause: Callable[[float], object] = lambda _: None
        self.settings: Settings = settings_module.load(
            callback_keys="k1:0123456789abcdef0123456789abcdef",
            subnets=(A, B),
            # Each attempt by itself; test_launch_groups.py has the others.
            **{"launch_group_size": 1, **settings},
        )
        real = Cloud(self.settings)
        for image in ("ami-1", "ami-2"):
            real._images[image] = {"RootDeviceName": "/dev/xvda"}
        self.limits = RateLimits(self.settings, database)
        self.cloud = ScriptedCloud(real)
        self.cloud.throttled = lambda: self.limits.throttled(Limit.RUN_INSTANCES)
        self.restart()

    def restart(self) -> None:
        """A new process: what was in memory is gone."""
        self.launcher = Launcher(
            self.settings,
            self.database,
            cast(Cloud, self.cloud),
            clock=lambda: self.now,
            rng=lambda: 0.0,
            pause=lambda seconds: self.pause(seconds),
        )
        self.sweep = SweepLoop(self.launcher, interval_s=10)

    def later(self, seconds: float) -> None:
        """Let time pass, for the records too."""
        self.now += seconds
        advance(self.database, seconds)
        with self.database.begin() as tx:
            for table, column in (
                ("attempts", "called_at"),
                ("attempts", "created_at"),
                ("attempts", "exited_at"),
                ("jobs", "updated_at"),
            ):
                tx.execute(
                    text(f"UPDATE {table} SET {column} = {column} - make_interval(secs => :s)"),
                    {"s": seconds},
                )
            for attempt in attempts.still_open(tx):
                if at := attempt.launch.unsure_at:
                    earlier = {"unsure_at": at - timedelta(seconds=seconds)}
                    moved = attempt.launch.model_copy(update=earlier)
                    tx.execute(
                        text("UPDATE attempts SET launch = :launch WHERE job_id = :job"),
                        {"launch": moved.model_dump_json(), "job": attempt.job_id},
                    )

    def queued(self, **machine: Any) -> AttemptRef:
        """Submit a job and have it claimed."""
        spec = parse_spec({"image": "busybox", "env": {"A": "1"}, "machine": machine})
        with self.database.begin() as tx:
            jobs.submit_one(tx, spec, actor="test")
            (ref,) = jobs.claim_due(tx, 10, actor="test")
        return ref

    def launch(self, **machine: Any) -> AttemptRef:
        """Submit a job and let the launcher do what a message makes it do."""
        ref = self.queued(**machine)
        self.call(ref)
        return ref

    def call(self, ref: AttemptRef) -> None:
        for attempt, spec in self.launcher.begin([ref]):
            self.launcher.call(attempt, spec)

    def attempt(self, ref: AttemptRef) -> Attempt:
        with self.database.begin() as tx:
            attempt = attempts.get(tx, ref)
        assert attempt is not None
        return attempt

    def job(self, ref: AttemptRef) -> Job:
        with self.database.begin() as tx:
            return jobs.get(tx, ref.job_id)

    def blocked_on(self, ref: AttemptRef) -> list[str]:
        """What blocked the attempt, by its history."""
        with self.database.begin() as tx:
            history: list[Event] = events.of_job(tx, ref.job_id)
        return [one.detail["blocked_on"] for one in history if one.type == "attempt.blocked"]

    def has_instance(self, ref: AttemptRef) -> bool:
        attempt = self.attempt(ref)
        return attempt.state is AttemptState.WARMING and attempt.detail is None


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


def gauge(name: str, **labels: str) -> float:
    value = REGISTRY.get_sample_value(name, labels)
    assert value is not None
    return value


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
        world.launcher.admission.availability.no_capacity(_offering(A), "empty")
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
        world.launcher.admission.availability.no_capacity(_offering(A), "empty")
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
            (again,) = jobs.claim_due(tx, 10, actor="test")
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


def _offering(subnet_id: str) -> Any:
    return Offering("t3.small", subnet_id, "on-demand")


def reaper_sweep(world: World) -> None:
    limits = Limits(
        launch_s=3600, boot_s=1800, pull_s=1800, stop_s=300, queue_s=86_400, grace_s=300
    )
    reaper = Reaper(world.database, cast(Cloud, world.cloud))
    ReaperSweep(reaper, world.database, limits=limits, interval_s=10).tick()


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
