"""What tests of the reaper share: its real steps over a real Postgres and a twin of EC2.

The twin's machines stay pending for an hour, so that none ever boots and fifty cost nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from boto3.session import Session
from sqlalchemy import text

from atemporal.cloud import Cloud
from atemporal.fleet.plan import Limits
from atemporal.model import Attempt, AttemptRef, ExitRecord, Launch, parse_spec
from atemporal.settings import Settings
from atemporal.store import attempts, installation, jobs, launches
from atemporal.store.database import Database
from atemporal.twin.faults.active_rules import ActiveRules
from atemporal.twin.host import Pace
from atemporal.twin.server import Twin
from services.reaper.reaper import Reaper
from services.reaper.sweep import SweepLoop
from tests.claims import claim_due
from tests.servers.ports import free_port

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

DEPLOYMENT = "ours"
NOBODY = "i-0123456789abcdef0"
ENDED = ("shutting-down", "terminated")
LAUNCH = Launch(
    image_id="ami-12345678",
    instance_type="t3.small",
    callback_base="http://127.0.0.1:9",
    key_id="k1",
    deadline_s=3600,
)


class World:
    """A deployment: its database, its cloud and its reaper."""

    def __init__(self, database: Database) -> None:
        """Make the clients, which takes long; the cloud they speak to is not there yet."""
        self._port = free_port()
        url = f"http://127.0.0.1:{self._port}"
        self.database = database
        self.settings = Settings(ec2_endpoint_url=url, deployment=DEPLOYMENT)
        self.cloud = Cloud(self.settings)
        self.reaper = Reaper(database, self.cloud)
        self.ec2: EC2Client = Session().client("ec2", region_name="us-east-1", endpoint_url=url)
        self.limits = limits()
        self._twin: Twin | None = None

    def open(self, directory: Path) -> None:
        """Start an empty cloud and a reaper that remembers nothing, for one test."""
        self.limits = limits()
        self.reaper = Reaper(self.database, self.cloud)
        pace = Pace(pending_s=3600)
        self._twin = Twin(directory, port=self._port, engine="process", pace=pace).start()

    def shut(self) -> None:
        """Empty the tables and end the cloud."""
        with self.database.begin() as tx:
            tx.execute(text("TRUNCATE jobs, attempts, events CASCADE"))
        if self._twin is not None:
            self._twin.stop(power_off=True)

    def close(self) -> None:
        """Give the connections back."""
        self.ec2.close()
        self.cloud.close()

    def change(self, instance_id: str, **changes: Any) -> None:
        """Let something happen to an instance that the API has no call for."""
        assert self._twin is not None
        self._twin._now.host.state.change(instance_id, **changes)

    @property
    def faults(self) -> ActiveRules:
        """The fault rules of its cloud."""
        assert self._twin is not None
        return self._twin.faults

    def claim(self, ref: AttemptRef, instance_id: str | None, claim_id: str = "c") -> None:
        """Let a machine that says it is this instance be granted the attempt."""
        with self.database.begin() as tx:
            attempts.claim(tx, ref, claim_id=claim_id, instance_id=instance_id, actor="test")

    def complete(self, ref: AttemptRef) -> None:
        """Let the attempt's machine report that its container has ended well."""
        record = ExitRecord(exit_code=0)
        with self.database.begin() as tx:
            assert attempts.end(tx, ref, record.reason, actor="test", exit_record=record)

    def sweep(self) -> SweepLoop:
        """The reaper's sweep."""
        return SweepLoop(self.reaper, self.database, limits=self.limits, interval_s=1)

    def identity(self) -> UUID:
        """The id of this installation."""
        with self.database.begin() as tx:
            return installation.identity(tx)

    def begin(self, **fields: Any) -> AttemptRef:
        """Commit the intent to launch a new job's first attempt."""
        with self.database.begin() as tx:
            spec = parse_spec({"image": "busybox", **fields})
            job_id = jobs.submit_one(tx, spec, actor="test").job_id
            (ref,) = (r for r in claim_due(tx, 10, actor="test") if r.job_id == job_id)
            assert launches.begin(tx, ref, LAUNCH, actor="test")
        return ref

    def begin_again(self, ref: AttemptRef) -> None:
        """Let the next attempt of a known job be due, and begin it."""
        with self.database.begin() as tx:
            due = text("UPDATE jobs SET due_at = now() WHERE id = :id AND state = 'scheduled'")
            tx.execute(due, {"id": ref.job_id})
            assert ref in claim_due(tx, 10, actor="test")
            assert launches.begin(tx, ref, LAUNCH, actor="test")

    def launch(self, **fields: Any) -> tuple[AttemptRef, str]:
        """Give a new attempt its instance, written down."""
        ref = self.begin(**fields)
        instance = self.cloud.run(ref, LAUNCH, b"#!/bin/true\n")
        self.write_down(ref, instance.id)
        return ref, instance.id

    def write_down(self, ref: AttemptRef, instance_id: str) -> None:
        """Record that the attempt has this instance."""
        with self.database.begin() as tx:
            attempts.launched(tx, ref, instance_id, actor="test")

    def cancel(self, ref: AttemptRef) -> None:
        """Cancel the attempt's job."""
        with self.database.begin() as tx:
            jobs.cancel(tx, ref.job_id, actor="test")

    def attempt(self, ref: AttemptRef) -> Attempt:
        """The attempt as it is recorded."""
        with self.database.begin() as tx:
            found = attempts.get(tx, ref)
        assert found is not None
        return found

    def foreign(self, tags: Mapping[str, str], *, keep_disk: bool = False) -> str:
        """An instance that somebody else launched, with such tags on it and on its volume."""
        listed = [{"Key": key, "Value": value} for key, value in tags.items()]
        request: dict[str, Any] = {}
        if listed:
            request["TagSpecifications"] = [
                {"ResourceType": kind, "Tags": listed} for kind in ("instance", "volume")
            ]
        if keep_disk:
            disk = {"DeviceName": "/dev/xvda", "Ebs": {"DeleteOnTermination": False}}
            request["BlockDeviceMappings"] = [disk]
        answer = self.ec2.run_instances(
            ImageId="ami-12345678", InstanceType="t3.small", MinCount=1, MaxCount=1, **request
        )
        return answer["Instances"][0]["InstanceId"]

    def states(self) -> dict[str, str]:
        """The state of every instance there is, whoever's."""
        answer = self.ec2.describe_instances()
        return {
            one["InstanceId"]: one["State"]["Name"]
            for reservation in answer["Reservations"]
            for one in reservation["Instances"]
        }

    def volumes(self) -> set[str]:
        """Every volume there is, whoever's."""
        return {one["VolumeId"] for one in self.ec2.describe_volumes()["Volumes"]}

    def wait_gone(self, *ids: str) -> None:
        """Wait until these are terminated."""
        wait(lambda: all(self.states()[one] == "terminated" for one in ids))


def limits(**other: float) -> Limits:
    """Ample deadlines, and no grace: what is there is old enough."""
    ample = {"launch_s": 3600, "boot_s": 3600, "pull_s": 3600, "stop_s": 300, "queue_s": 9999}
    return Limits(**{**ample, "grace_s": -1, **other})


def tags_of(
    ref: AttemptRef, deployment: str = DEPLOYMENT, installation: UUID | None = None
) -> dict[str, str]:
    """The tags that an attempt's instance has; releases of old name no installation."""
    whose = {"atemporal:installation": str(installation)} if installation else {}
    return {
        **whose,
        "atemporal:deployment": deployment,
        "atemporal:job": str(ref.job_id),
        "atemporal:attempt": str(ref.number),
    }


def wait(condition: Callable[[], bool], within_s: float = 30) -> None:
    """Poll a condition of another thread's making."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)
