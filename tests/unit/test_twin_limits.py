"""EC2's limits of calls on the twin: off by default, else of the published sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from atemporal.errors import Invalid
from atemporal.twin.ec2.api import ACTIONS
from atemporal.twin.ec2.limits import Limits
from atemporal.twin.ec2.wire import ApiError
from atemporal.twin.server import Twin
from tests.unit.test_twin_api import Clock, run
from tests.unit.test_twin_faults import failures, started


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_ec2s_limits_are_off_by_default(tmp_path: Path, clock: Clock) -> None:
    with started(tmp_path, clock) as (_, ec2):
        assert not any(failures(*[lambda: run(ec2)] * 8))


def test_ec2s_limit_of_requests(tmp_path: Path, clock: Clock) -> None:
    with started(tmp_path, clock, limits="aws") as (twin, ec2):
        assert failures(*[lambda: run(ec2)] * 6) == [False] * 5 + [True]
        with pytest.raises(ClientError) as refused:
            run(ec2)
        assert refused.value.response["Error"]["Code"] == "RequestLimitExceeded"
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
        assert failures(ec2.describe_images) == [False], "each call has its own"
        clock.now += 0.5
        assert failures(*[lambda: run(ec2)] * 2) == [False, True]
        clock.now += 3600
        assert failures(*[lambda: run(ec2)] * 6) == [False] * 5 + [True]
        assert twin.faults.counts() == {}, "a limit is no fault"
        assert twin.calls[-1]["code"] == "RequestLimitExceeded"


def test_unknown_limits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="none of none, aws"):
        Twin(tmp_path, engine="process", limits="azure").start()


IDS = [f"i-{number:017x}" for number in range(1000)]


@pytest.mark.parametrize(
    ("call", "parameters", "at_once", "a_second"),
    [
        ("RunInstances", {"MaxCount": "1"}, 5, 2),
        ("TerminateInstances", {"InstanceId": ["i-1"]}, 100, 5),
        ("CreateTags", {"ResourceId": ["i-1"]}, 100, 10),
        ("DescribeInstances", {}, 50, 10),
        ("DescribeInstanceStatus", {}, 50, 10),
        ("DescribeInstances", {"Filter": [{}]}, 100, 20),
        ("DescribeInstances", {"InstanceId": ["i-1"]}, 100, 20),
        ("DescribeInstances", {"MaxResults": "5"}, 100, 20),
        ("DescribeImages", {}, 100, 20),
        ("GetConsoleOutput", {"InstanceId": "i-1"}, 100, 20),
        # Here it is the instances that there are not more of, not the requests.
        ("RunInstances", {"MaxCount": "250"}, 4, 0),
        ("TerminateInstances", {"InstanceId": IDS[:100]}, 10, 0),
        ("TerminateInstances", {"InstanceId": IDS[:20]}, 50, 1),
    ],
)
def test_the_buckets_have_the_published_sizes(
    clock: Clock, call: str, parameters: dict[str, Any], at_once: int, a_second: int
) -> None:
    limits = Limits(clock)

    def allowed() -> int:
        for count in range(1001):
            try:
                limits.take(call, ACTIONS[call], dict(parameters))
            except ApiError:
                return count
        raise AssertionError("there is no limit")

    assert allowed() == at_once
    clock.now += 1
    assert allowed() == a_second
    clock.now -= 60
    assert allowed() == 0
    clock.now += 1
    assert allowed() == a_second, "a clock that was set back neither fills nor drains"


def test_a_thousand_instances_take_as_long_as_published(clock: Clock) -> None:
    limits = Limits(clock)
    began = clock.now
    for _ in range(1000):
        while True:
            try:
                limits.take("RunInstances", ACTIONS["RunInstances"], {"MaxCount": "1"})
                break
            except ApiError:
                clock.now += 0.25
    assert 497 <= clock.now - began <= 498
