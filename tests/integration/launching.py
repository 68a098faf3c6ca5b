"""A launcher on a real Postgres, and a cloud that answers by a script.

The cloud knows what EC2 knows: a token that launched something gives that instance again. The script
says how the next calls go; time passes when a test says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from prometheus_client import REGISTRY
from sqlalchemy import text

from atemporal import settings as settings_module
from atemporal.cloud import (
    Cloud,
    CloudError,
    Instance,
    NoAnswer,
    NoCapacity,
    OverQuota,
    Rejected,
    ServerFault,
    Throttled,
    WrongImage,
)
from atemporal.cloud.instance import tags_of
from atemporal.fleet.plan import Limits
from atemporal.limits import Limit
from atemporal.model import Attempt, AttemptRef, Event, Job, Launch, parse_spec
from atemporal.rate_limits import RateLimits
from atemporal.settings import Settings
from atemporal.states import AttemptState
from atemporal.store import attempts, events, jobs
from atemporal.store.database import Database
from services.launcher.launcher import Launcher
from services.launcher.offerings import Offering
from services.launcher.sweep import SweepLoop
from services.reaper.reaper import Reaper
from services.reaper.sweep import SweepLoop as ReaperSweep
from tests.claims import claim_due
from tests.frozen_clock import advance

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
    arm64_image: str | None = None
    wrong_images: set[str] = field(default_factory=set)
    throttled: Callable[[], None] = lambda: None
    policy: Callable[[dict[str, str]], CloudError | None] = lambda _: None
    """What EC2 has against a call with these tags."""

    def resolve_image(self, architecture: str | None = None) -> str:
        if self.image_error:
            raise self.image_error
        if architecture == "arm64":
            if self.arm64_image is None:
                raise Rejected("looking up an image", "NoImage", "there is none for arm64")
            return self.arm64_image
        return self.image

    def disks_gb(self, image_id: str, disk_gb: int | None) -> int:
        return self.real.disks_gb(image_id, disk_gb)

    def run(self, ref: AttemptRef, launch: Launch, user_data: bytes) -> Instance:
        if launch.image_id in self.wrong_images:
            raise WrongImage("launching", "WrongImage", f"image {launch.image_id} is not flatcar")
        request = self.real.request(ref, launch, user_data)
        token = request["ClientToken"]
        offering = (launch.instance_type, launch.subnet_id, launch.capacity_type)
        self.calls.append(Call(token, repr(request), offering))
        if refused := self.policy(tags_in(request)):
            raise refused
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


def tags_in(request: dict[str, Any]) -> dict[str, str]:
    """The tags of the instance, which are the volumes' too."""
    instance, volume = request["TagSpecifications"]
    assert instance["Tags"] == volume["Tags"]
    return {one["Key"]: one["Value"] for one in instance["Tags"]}


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
            real._images._known[image] = {"RootDeviceName": "/dev/xvda"}
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

    def queued(
        self,
        *,
        secrets: Mapping[str, str] | None = None,
        secret_refs: Mapping[str, str] | None = None,
        **machine: Any,
    ) -> AttemptRef:
        """Submit a job and have it claimed."""
        fields = {"image": "busybox", "env": {"A": "1"}, "secrets": {**(secrets or {})}}
        fields["secret_refs"] = {**(secret_refs or {})}
        spec = parse_spec({**fields, "machine": machine})
        with self.database.begin() as tx:
            jobs.submit_one(tx, spec, actor="test")
            (ref,) = claim_due(tx, 10, actor="test")
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


def gauge(name: str, **labels: str) -> float:
    value = REGISTRY.get_sample_value(name, labels)
    assert value is not None
    return value


def offering_of_subnet(subnet_id: str) -> Any:
    return Offering("t3.small", subnet_id, "on-demand")


def reaper_sweep(world: World) -> None:
    limits = Limits(
        launch_s=3600, boot_s=1800, pull_s=1800, stop_s=300, queue_s=86_400, grace_s=300
    )
    reaper = Reaper(world.database, cast(Cloud, world.cloud))
    ReaperSweep(reaper, world.database, limits=limits, interval_s=10).tick()
