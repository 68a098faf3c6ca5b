"""Faults of the twin's calls and its fault rules, tested by the real SDK."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError

from atemporal.errors import Conflict, Invalid, NotFound
from atemporal.twin.faults import rule
from atemporal.twin.host import Pace
from atemporal.twin.server import Twin
from tests.unit.test_twin_api import Clock, describe, run, run_one
from tests.unit.test_twin_machine import until

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

UNKNOWN = "i-0123456789abcdef0"
Refused = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


def client(url: str, read_timeout_s: float = 60) -> EC2Client:
    ec2: EC2Client = boto3.client(
        "ec2",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=Config(retries={"total_max_attempts": 1}, read_timeout=read_timeout_s),
    )
    return ec2


@contextmanager
def started(
    directory: Path, clock: Callable[[], float], **options: Any
) -> Iterator[tuple[Twin, EC2Client]]:
    # Instances stay pending, and once ended never quite get there.
    pace = options.pop("pace", Pace(pending_s=1000, shutdown_s=1000))
    twin = Twin(directory, engine="process", pace=pace, clock=clock, **options)
    twin.start()
    ec2 = client(twin.url)
    yield twin, ec2
    ec2.close()
    twin.stop()


@pytest.fixture
def both(tmp_path: Path, clock: Clock) -> Iterator[tuple[Twin, EC2Client]]:
    with started(tmp_path, clock) as both:
        yield both


@pytest.fixture
def twin(both: tuple[Twin, EC2Client]) -> Twin:
    return both[0]


@pytest.fixture
def ec2(both: tuple[Twin, EC2Client]) -> EC2Client:
    return both[1]


@pytest.fixture
def refused() -> Refused:
    @contextmanager
    def context(code: str, status: int = 400) -> Iterator[None]:
        with pytest.raises(ClientError) as caught:
            yield
        response: Any = caught.value.response
        assert response["Error"]["Code"] == code
        assert response["ResponseMetadata"]["HTTPStatusCode"] == status

    return context


def states(ec2: EC2Client) -> dict[str, str]:
    return {one["InstanceId"]: one["State"]["Name"] for one in describe(ec2)}


def failures(*calls: Callable[[], object]) -> list[bool]:
    """Which of the calls fail; only faults and limits make them fail."""
    outcomes = []
    for call in calls:
        try:
            call()
            outcomes.append(False)
        except ClientError:
            outcomes.append(True)
    return outcomes


@pytest.mark.parametrize(
    ("kind", "code", "status"),
    [
        ("throttle", "RequestLimitExceeded", 503),
        ("capacity", "InsufficientInstanceCapacity", 500),
        ("quota", "VcpuLimitExceeded", 400),
        ("unauthorized", "UnauthorizedOperation", 403),
        ("missing", "InvalidSubnetID.NotFound", 400),
        ("fail-before", "InternalError", 500),
    ],
)
def test_a_call_is_refused_and_nothing_is_done(
    twin: Twin, ec2: EC2Client, refused: Refused, kind: str, code: str, status: int
) -> None:
    added = twin.faults.add(kind, call="RunInstances", times=1)

    with refused(code, status):
        run(ec2, ClientToken="a")

    assert states(ec2) == {}
    assert twin.faults.counts() == {kind: 1}
    first, *_ = twin.calls
    assert (first["action"], first["token"], first["code"]) == ("RunInstances", "a", code)
    assert (first["fault"], first["rule"], first["instances"]) == (kind, added.id, [])
    assert len(run(ec2, ClientToken="a")) == 1, "it was for one call"
    assert twin.faults.counts() == {kind: 1}


def test_a_rule_may_choose_the_error_code(twin: Twin, ec2: EC2Client, refused: Refused) -> None:
    twin.faults.add("capacity", code="UnfulfillableCapacity")

    with refused("UnfulfillableCapacity", 500):
        run(ec2)


@pytest.mark.parametrize("call", [None, "Describe*", "DescribeInstances"])
def test_a_rule_is_for_the_calls_that_it_names(
    twin: Twin, ec2: EC2Client, refused: Refused, call: str | None
) -> None:
    twin.faults.add("throttle", **({"call": call} if call else {}))

    with refused("RequestLimitExceeded", 503):
        ec2.describe_instances()

    assert failures(lambda: run(ec2)) == [call is None]
    assert failures(lambda: ec2.describe_images()) == [call != "DescribeInstances"]


def test_a_call_can_fail_after_it_was_done(twin: Twin, ec2: EC2Client, refused: Refused) -> None:
    twin.faults.add("fail-after", call="RunInstances", times=1)

    with refused("InternalError", 500):
        run(ec2, ClientToken="a")

    [launched] = states(ec2)
    assert twin.calls[0]["instances"] == [launched]
    assert run_one(ec2, ClientToken="a") == launched
    assert twin.faults.counts() == {"fail-after": 1}


def test_what_ec2_refuses_by_itself_is_no_fault(
    twin: Twin, ec2: EC2Client, refused: Refused
) -> None:
    twin.faults.add("fail-after", times=1)

    with refused("InvalidAMIID.Malformed"):
        run(ec2, ImageId="nonsense")

    assert twin.faults.counts() == {}
    with refused("InternalError", 500):
        run(ec2)


@pytest.mark.parametrize(("kind", "done"), [("timeout-before", 0), ("timeout-after", 1)])
def test_a_call_gets_no_response(twin: Twin, ec2: EC2Client, kind: str, done: int) -> None:
    twin.faults.add(kind, call="RunInstances", seconds=0, times=1)

    with pytest.raises(ConnectionClosedError):
        run(ec2, ClientToken="a")

    assert len(states(ec2)) == done
    assert twin.calls[0]["code"] == "Severed"
    run(ec2, ClientToken="a")
    assert len(states(ec2)) == 1
    assert twin.faults.counts() == {kind: 1}


def test_a_call_without_response_is_held_so_that_its_caller_times_out(twin: Twin) -> None:
    twin.faults.add("timeout-after", call="RunInstances", seconds=3600)
    impatient = client(twin.url, read_timeout_s=0.2)

    with pytest.raises(ReadTimeoutError):
        run(impatient)

    assert len(states(impatient)) == 1
    impatient.close()


def test_a_batch_can_end_half_of_its_instances(
    twin: Twin, ec2: EC2Client, refused: Refused
) -> None:
    twin.faults.add("partial-terminate", times=1)
    ids = [one["InstanceId"] for one in run(ec2, MinCount=4, MaxCount=4)]

    with refused("InternalError", 500):
        ec2.terminate_instances(InstanceIds=ids)

    assert sorted(states(ec2).values()) == ["pending"] * 2 + ["shutting-down"] * 2
    ec2.terminate_instances(InstanceIds=ids)
    assert set(states(ec2).values()) == {"shutting-down"}


def test_half_of_one_instance_can_not_be_ended(twin: Twin, ec2: EC2Client) -> None:
    twin.faults.add("partial-terminate")

    ec2.terminate_instances(InstanceIds=[run_one(ec2)])

    assert twin.faults.counts() == {}


def test_a_token_can_be_spent_before_its_instance_is_quite_gone(
    twin: Twin, ec2: EC2Client, refused: Refused
) -> None:
    instance_id = run_one(ec2, ClientToken="a")
    twin.faults.add("spent-token", times=1)
    assert run_one(ec2, ClientToken="a") == instance_id, "its instance lives"
    ec2.terminate_instances(InstanceIds=[instance_id])

    with refused("IdempotentInstanceTerminated"):
        run(ec2, ClientToken="a")

    assert run_one(ec2, ClientToken="a") == instance_id, "EC2 does either"
    assert run_one(ec2, ClientToken="b") != instance_id
    assert twin.faults.counts() == {"spent-token": 1}


def test_a_hidden_instance_is_unknown_for_a_while(
    twin: Twin, ec2: EC2Client, clock: Clock, refused: Refused
) -> None:
    twin.faults.add("hidden", seconds=10, times=1)
    hidden, other = run_one(ec2, ClientToken="a"), run_one(ec2)

    clock.now += 9
    assert list(states(ec2)) == [other]
    for call in (ec2.describe_instances, ec2.terminate_instances):
        with refused("InvalidInstanceID.NotFound"):
            call(InstanceIds=[hidden])
    with refused("InvalidInstanceID.NotFound"):
        ec2.create_tags(Resources=[hidden], Tags=[{"Key": "k", "Value": "v"}])
    assert run_one(ec2, ClientToken="a") == hidden, "the token is known at once"

    clock.now += 1
    assert set(states(ec2)) == {hidden, other}
    ec2.terminate_instances(InstanceIds=[hidden])
    assert twin.faults.counts() == {"hidden": 1}


def test_a_stale_instance_is_shown_as_it_was(twin: Twin, ec2: EC2Client, clock: Clock) -> None:
    twin.faults.add("stale", seconds=5)
    instance_id = run_one(ec2)
    clock.now += 100
    ec2.terminate_instances(InstanceIds=[instance_id])

    clock.now += 4
    assert states(ec2) == {instance_id: "pending"}
    pending = [{"Name": "instance-state-name", "Values": ["pending"]}]
    assert len(describe(ec2, Filters=pending)) == 1
    ec2.create_tags(Resources=[instance_id], Tags=[{"Key": "k", "Value": "v"}])

    clock.now += 1
    [shown] = describe(ec2)
    assert (shown["State"]["Name"], shown["Tags"]) == ("shutting-down", [])
    clock.now += 4
    assert describe(ec2)[0]["Tags"] == [{"Key": "k", "Value": "v"}]
    assert twin.faults.counts() == {"stale": 1}


@pytest.mark.parametrize("code", ["Server.InternalError", "Client.VolumeLimitExceeded"])
def test_a_launch_that_was_granted_dies(tmp_path: Path, code: str) -> None:
    with started(tmp_path, time.time, pace=Pace()) as (twin, ec2):
        twin.faults.add("launch-dies", seconds=0.3, code=code)

        [launched] = run(ec2)
        assert launched["State"]["Name"] == "pending"
        seen: list[str] = []

        def gone() -> Any:
            [instance] = describe(ec2)
            seen.append(instance["State"]["Name"])
            return instance if seen[-1] == "terminated" else None

        instance = until(gone)
        assert instance["StateReason"]["Code"] == code
        assert "running" not in seen
        assert not (tmp_path / "instances" / launched["InstanceId"] / "machine.json").exists()
        assert twin.faults.counts() == {"launch-dies": 1}


@pytest.mark.parametrize(
    "match",
    [
        {"instance_type": "t3.*"},
        {"subnet": "subnet-0123456789abcdef0"},
        {"zone": "us-east-1?"},
        {"capacity_type": "spot"},
        {"market": "spot"},
        {"token": "*.1"},
        {"token": "job.1", "capacity_type": "spot"},
    ],
)
def test_a_rule_is_for_the_launches_that_it_matches(
    twin: Twin, ec2: EC2Client, match: dict[str, str]
) -> None:
    twin.faults.add("capacity", match=match)
    spot: Any = {"MarketType": "spot"}
    fits: dict[str, Any] = {
        "InstanceType": "t3.small",
        "SubnetId": "subnet-0123456789abcdef0",
        "InstanceMarketOptions": spot,
        "ClientToken": "job.1",
    }
    other = {"InstanceType": "c5.large", "ClientToken": "job.2"}

    assert failures(lambda: run(ec2, **fits)) == [True]
    assert failures(lambda: run(ec2, **other)) == ["zone" in match]


def test_a_rule_is_for_the_calls_that_name_an_instance(twin: Twin, ec2: EC2Client) -> None:
    first, second = run_one(ec2), run_one(ec2)
    twin.faults.add("fail-before", match={"instance": first})

    assert failures(
        lambda: ec2.terminate_instances(InstanceIds=[second]),
        lambda: ec2.terminate_instances(InstanceIds=[first]),
        lambda: ec2.get_console_output(InstanceId=first),
        lambda: ec2.describe_instances(),
    ) == [False, True, True, False]


def test_the_same_seed_gives_the_same_faults(tmp_path: Path, clock: Clock) -> None:
    def outcomes(name: str, seed: int, *, disturbed: bool = False) -> list[bool]:
        with started(tmp_path / name, clock, seed=seed) as (twin, ec2):
            twin.faults.add("throttle", call="DescribeImages", probability=0.5)
            twin.faults.add("throttle", call="GetConsoleOutput", probability=0.5)
            found = []
            for _ in range(40):
                if disturbed:
                    failures(lambda: ec2.get_console_output(InstanceId=UNKNOWN))
                found += failures(lambda: ec2.describe_images())
            assert disturbed or twin.faults.counts() == {"throttle": sum(found)}
            return found

    first = outcomes("a", 7)
    assert 8 < sum(first) < 32
    assert outcomes("b", 7, disturbed=True) == first
    assert outcomes("c", 8) != first


def test_rules_and_counts_outlive_the_twin(tmp_path: Path, clock: Clock) -> None:
    with started(tmp_path, clock, seed=5) as (twin, ec2):
        added = twin.faults.add("throttle", call="DescribeImages", times=3)
        assert failures(ec2.describe_images, ec2.describe_images) == [True, True]

    with started(tmp_path, clock) as (twin, ec2):
        assert twin.faults.rules() == [(added, 2)]
        assert twin.faults.seed == 5
        assert twin.faults.counts() == {"throttle": 2}
        assert failures(ec2.describe_images, ec2.describe_images) == [True, False]
        assert twin.faults.counts() == {"throttle": 3}
        twin.faults.clear()

    with started(tmp_path, clock) as (twin, ec2):
        assert twin.faults.rules() == []
        assert twin.faults.add("throttle").id != added.id


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"kind": "gremlins"}, "none of throttle"),
        ({"kind": "throttle", "call": "ReleaseHosts"}, "no call"),
        ({"kind": "capacity", "call": "DescribeInstances"}, "RunInstances only"),
        ({"kind": "throttle", "seconds": 3}, "does not use 'seconds'"),
        ({"kind": "hidden", "code": "A"}, "does not use 'code'"),
        ({"kind": "slow-boot", "after": 3}, "does not use 'after'"),
        ({"kind": "throttle", "probability": 1.5}, "probability"),
        ({"kind": "throttle", "times": 0}, "times"),
        ({"kind": "throttle", "often": 2}, "often: unknown field"),
        ({"kind": "throttle", "match": {"colour": "red"}}, "match.colour: unknown field"),
        ({"kind": "slow-boot", "match": {"instance": UNKNOWN}}, "decided at the launch"),
        ({"kind": "dies", "match": {"instance": "i-*"}}, "whole id"),
    ],
)
def test_a_rule_that_can_not_be_carried_out_is_refused(
    twin: Twin, given: dict[str, Any], why: str
) -> None:
    with pytest.raises(Invalid, match=why):
        twin.faults.add(given.pop("kind"), **given)

    assert twin.faults.rules() == []


def test_the_examples_of_rules_are_rules() -> None:
    lines = [line.strip() for line in (rule.__doc__ or "").splitlines()]
    examples = [json.loads(line) for line in lines if line.startswith("{")]

    assert len(examples) >= 4
    for example in examples:
        rule.FaultRule.model_validate(example)


def test_a_fault_of_a_machine_that_is_not_there_is_refused(twin: Twin, ec2: EC2Client) -> None:
    ended, on_demand = run_one(ec2), run_one(ec2)
    ec2.terminate_instances(InstanceIds=[ended])

    with pytest.raises(NotFound, match=UNKNOWN):
        twin.faults.add("dies", match={"instance": UNKNOWN})
    with pytest.raises(Conflict, match="shutting-down"):
        twin.faults.add("dies", match={"instance": ended})
    with pytest.raises(Invalid, match="no spot instance"):
        twin.faults.add("spot-interruption", match={"instance": on_demand})

    assert twin.faults.rules() == []
    assert twin.faults.counts() == {}
