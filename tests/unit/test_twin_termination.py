"""TerminateInstances on the twin: without the operating system, by force, and some of many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from atemporal.twin.server import Twin
from tests.unit.test_twin_machine import (
    booted,
    client,
    cloud_config,
    console,
    describe,
    ended,
    launch,
    until,
)

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

SLEEP = ("sleep.service", "[Service]\nExecStart=/bin/sleep 1000\n")


@pytest.fixture
def twin(tmp_path: Path) -> Iterator[Twin]:
    with Twin(tmp_path / "twin", engine="process") as twin:
        yield twin


@pytest.fixture
def ec2(twin: Twin) -> Iterator[EC2Client]:
    ec2 = client(twin.url)
    yield ec2
    ec2.close()


def running(ec2: EC2Client) -> str:
    instance_id = launch(ec2, cloud_config(SLEEP))
    booted(ec2, instance_id)
    return instance_id


@pytest.mark.parametrize(("skips", "expected"), [(False, True), (True, False)])
def test_the_operating_system_is_told_unless_it_is_skipped(
    ec2: EC2Client, skips: bool, expected: bool
) -> None:
    instance_id = running(ec2)
    ec2.terminate_instances(InstanceIds=[instance_id], SkipOsShutdown=skips)
    assert ended(ec2, instance_id)["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert ("Power down" in console(ec2, instance_id)) is expected


@pytest.mark.parametrize("asked", [{}, {"SkipOsShutdown": True}])
def test_one_that_sticks_ends_when_it_is_forced(
    twin: Twin, ec2: EC2Client, asked: dict[str, Any]
) -> None:
    twin.faults.add("sticks")
    instance_id = running(ec2)
    ec2.terminate_instances(InstanceIds=[instance_id], **asked)
    until(lambda: twin.faults.counts() == {"sticks": 1})
    ec2.terminate_instances(InstanceIds=[instance_id], SkipOsShutdown=True)
    assert describe(ec2, instance_id)["State"]["Name"] == "shutting-down"
    ec2.terminate_instances(InstanceIds=[instance_id], Force=True)
    ended(ec2, instance_id)


def test_one_that_sticks_for_a_while_ends_by_itself(twin: Twin, ec2: EC2Client) -> None:
    twin.faults.add("sticks", seconds=0.2)
    instance_id = running(ec2)
    ec2.terminate_instances(InstanceIds=[instance_id])
    ended(ec2, instance_id)
    assert twin.faults.counts() == {"sticks": 1}


def test_force_ends_one_that_runs_as_any_other_call(ec2: EC2Client) -> None:
    instance_id = running(ec2)
    ec2.terminate_instances(InstanceIds=[instance_id], Force=True)
    ended(ec2, instance_id)


def test_a_protected_instance_saves_those_of_its_zone_only(ec2: EC2Client) -> None:
    def one(subnet: str, *, protected: bool = False) -> str:
        answer = ec2.run_instances(
            ImageId="ami-12345678",
            InstanceType="t3.small",
            MinCount=1,
            MaxCount=1,
            SubnetId=subnet,
            DisableApiTermination=protected,
        )
        return answer["Instances"][0]["InstanceId"]

    a, b = (one("subnet-0aaaaaaaaaaaaaaaa") for _ in range(2))
    zone = describe(ec2, a)["Placement"]["AvailabilityZone"]
    elsewhere = next(
        other
        for other in (f"subnet-0{number:016x}" for number in range(20))
        if describe(ec2, one(other))["Placement"]["AvailabilityZone"] != zone
    )
    c, d = one(elsewhere, protected=True), one(elsewhere)
    with pytest.raises(ClientError, match="OperationNotPermitted"):
        ec2.terminate_instances(InstanceIds=[a, b, c, d])
    states = {each: describe(ec2, each)["State"]["Name"] for each in (a, b, c, d)}
    gone = {"shutting-down", "terminated"}
    assert [states[each] in gone for each in (a, b, c, d)] == [True, True, False, False]
    ec2.terminate_instances(InstanceIds=[d, a])
    assert describe(ec2, d)["State"]["Name"] in gone


@pytest.mark.parametrize("name", ["SkipOsShutdown", "Force"])
def test_a_value_that_is_no_boolean_is_refused(twin: Twin, name: str) -> None:
    with pytest.raises(Exception, match="Invalid value 'perhaps'"):
        twin._now.interceptor.handle(
            "TerminateInstances", {"InstanceId": ["i-12345678"], name: "perhaps"}
        )
