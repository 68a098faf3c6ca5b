"""The behaviour of EC2 that the twin promises, tested by the real SDK."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.exceptions import ClientError

from atemporal.architecture import architecture
from atemporal.errors import Conflict
from atemporal.twin.catalogue import IMAGES
from atemporal.twin.host import Pace
from atemporal.twin.server import Twin

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

UNKNOWN = "i-0123456789abcdef0"
X86_64, ARM64 = (
    next(one["imageId"] for one in IMAGES if one["architecture"] == name)
    for name in ("x86_64", "arm64")
)


class Clock:
    """Seconds since the epoch, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def twin(tmp_path: Path, clock: Clock) -> Iterator[Twin]:
    # Instances stay pending: no test here is about what happens on a machine.
    pace = Pace(pending_s=1000)
    with Twin(tmp_path, engine="process", pace=pace, clock=clock) as twin:
        yield twin


@pytest.fixture
def ec2(twin: Twin) -> Iterator[EC2Client]:
    ec2 = boto3.client(
        "ec2",
        endpoint_url=twin.url,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
    )
    yield ec2
    ec2.close()


def run(ec2: EC2Client, **changes: Any) -> list[Any]:
    request = {"ImageId": "ami-12345678", "InstanceType": "t3.small", "MinCount": 1, "MaxCount": 1}
    return list(ec2.run_instances(**{**request, **changes})["Instances"])


def run_one(ec2: EC2Client, **changes: Any) -> str:
    [instance] = run(ec2, **changes)
    return str(instance["InstanceId"])


def tagged(**tags: str) -> list[Any]:
    pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
    return [{"ResourceType": "instance", "Tags": pairs}]


def describe(ec2: EC2Client, **request: Any) -> list[Any]:
    response = ec2.describe_instances(**request)
    return [one for group in response["Reservations"] for one in group["Instances"]]


def matching(ec2: EC2Client, name: str, *values: str) -> set[str]:
    found = describe(ec2, Filters=[{"Name": name, "Values": list(values)}])
    return {one["InstanceId"] for one in found}


def terminate(ec2: EC2Client, *ids: str) -> None:
    ec2.terminate_instances(InstanceIds=list(ids))
    deadline = time.monotonic() + 10
    while {one["State"]["Name"] for one in describe(ec2, InstanceIds=list(ids))} != {"terminated"}:
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def refused() -> Any:
    class Context:
        def __init__(self, code: str, status: int = 400) -> None:
            self._code, self._status = code, status

        def __enter__(self) -> None:
            return None

        def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
            assert isinstance(error, ClientError), f"not refused: {error!r}"
            assert error.response["Error"]["Code"] == self._code
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] == self._status
            return True

    return Context


def test_an_instance_has_what_was_asked_for(ec2: EC2Client) -> None:
    instance_id = run_one(
        ec2,
        UserData="#cloud-config\n",
        KeyName="key",
        SubnetId="subnet-0123456789abcdef0",
        SecurityGroupIds=["sg-1"],
        IamInstanceProfile={"Name": "profile"},
        MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        InstanceInitiatedShutdownBehavior="terminate",
        InstanceMarketOptions={"MarketType": "spot"},
        TagSpecifications=tagged(Name="a job"),
        ClientToken="token",
    )

    [found] = describe(ec2, InstanceIds=[instance_id])

    assert found["State"] == {"Code": 0, "Name": "pending"}
    assert found["KeyName"] == "key"
    assert found["SubnetId"] == "subnet-0123456789abcdef0"
    assert found["SecurityGroups"] == [{"GroupId": "sg-1", "GroupName": "sg-1"}]
    assert found["IamInstanceProfile"]["Arn"].endswith("instance-profile/profile")
    assert found["MetadataOptions"]["HttpTokens"] == "required"
    assert found["InstanceLifecycle"] == "spot"
    assert found["Tags"] == [{"Key": "Name", "Value": "a job"}]
    assert found["ClientToken"] == "token"
    assert found["Placement"]["AvailabilityZone"].startswith("us-east-1")
    attribute = ec2.describe_instance_attribute
    user_data = attribute(InstanceId=instance_id, Attribute="userData")["UserData"]["Value"]
    assert base64.b64decode(user_data) == b"#cloud-config\n"
    behaviour = attribute(InstanceId=instance_id, Attribute="instanceInitiatedShutdownBehavior")
    assert behaviour["InstanceInitiatedShutdownBehavior"] == {"Value": "terminate"}


def test_a_token_launches_once(ec2: EC2Client, refused: Any) -> None:
    first = run_one(ec2, ClientToken="a", TagSpecifications=tagged(n="1"))

    assert run_one(ec2, ClientToken="a", TagSpecifications=tagged(n="1")) == first
    with refused("IdempotentParameterMismatch"):
        run(ec2, ClientToken="a", TagSpecifications=tagged(n="2"))
    assert run_one(ec2, ClientToken="A") != first
    assert len(describe(ec2)) == 2


def test_a_token_counts_in_its_zone_or_in_the_region(ec2: EC2Client) -> None:
    def zone(name: str) -> dict[str, Any]:
        return {"Placement": {"AvailabilityZone": name}}

    ids = {
        run_one(ec2, ClientToken="a"),
        run_one(ec2, ClientToken="a", **zone("us-east-1a")),
        run_one(ec2, ClientToken="a", **zone("us-east-1b")),
        run_one(ec2, ClientToken="a", **zone("us-east-1b")),
    }

    assert len(ids) == 3


def test_a_token_is_spent_when_its_instance_is_terminated(
    ec2: EC2Client, clock: Clock, refused: Any
) -> None:
    terminate(ec2, run_one(ec2, ClientToken="a"))

    with refused("IdempotentInstanceTerminated"):
        run(ec2, ClientToken="a")
    clock.now += 20 * 3600
    with refused("IdempotentInstanceTerminated"):
        run(ec2, ClientToken="a")
    clock.now += 6 * 3600
    run(ec2)
    assert run_one(ec2, ClientToken="a")


def test_a_call_without_a_token_is_a_call_of_its_own(ec2: EC2Client) -> None:
    assert run_one(ec2) != run_one(ec2)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"ClientToken": "x" * 65}, "InvalidParameterValue"),
        ({"MinCount": 2}, "InvalidParameterValue"),
        ({"MinCount": 0}, "InvalidParameterValue"),
        ({"MaxCount": 1001}, "ResourceCountExceeded"),
        ({"UserData": "x" * 16_385}, "InvalidUserData.Malformed"),
        ({"ImageId": "flatcar"}, "InvalidAMIID.Malformed"),
        ({"InstanceType": "small"}, "InvalidParameterValue"),
        ({"ImageId": X86_64, "InstanceType": "m7g.large"}, "InvalidParameterValue"),
        ({"ImageId": X86_64, "InstanceType": "im4gn.large"}, "InvalidParameterValue"),
        ({"ImageId": ARM64, "InstanceType": "m7i.large"}, "InvalidParameterValue"),
        ({"SubnetId": "subnet-x"}, "InvalidSubnetID.NotFound"),
        ({"InstanceInitiatedShutdownBehavior": "burn"}, "InvalidParameterValue"),
        ({"TagSpecifications": tagged(**{"aws:name": "x"})}, "InvalidParameterValue"),
        ({"TagSpecifications": tagged(**{"AwS:name": "x"})}, "InvalidParameterValue"),
        ({"TagSpecifications": tagged(**{"k" * 129: "x"})}, "InvalidParameterValue"),
        ({"TagSpecifications": tagged(k="v" * 257)}, "InvalidParameterValue"),
        (
            {
                "TagSpecifications": tagged(**{"atemporal/schedule": "x"}),
                "MetadataOptions": {"InstanceMetadataTags": "enabled"},
            },
            "InvalidParameterValue",
        ),
        ({"TagSpecifications": tagged(**{f"k{n}": "" for n in range(51)})}, "TagLimitExceeded"),
        ({"RamdiskId": "ari-1"}, "UnknownParameter"),
    ],
)
def test_a_bad_launch_launches_nothing(
    ec2: EC2Client, refused: Any, changes: dict[str, Any], code: str
) -> None:
    with refused(code):
        run(ec2, **changes)

    assert describe(ec2) == []


def test_user_data_may_have_its_full_size(ec2: EC2Client) -> None:
    assert run_one(ec2, UserData="x" * 16_384)


def test_as_many_as_possible_up_to_the_most(ec2: EC2Client) -> None:
    instances = run(ec2, MinCount=2, MaxCount=5)

    assert [one["AmiLaunchIndex"] for one in instances] == [0, 1, 2, 3, 4]
    assert len({one["InstanceId"] for one in instances}) == 5


def test_a_dry_run_does_nothing(ec2: EC2Client, refused: Any) -> None:
    with refused("DryRunOperation", 412):
        run(ec2, DryRun=True)

    assert describe(ec2) == []


def test_a_call_that_is_not_there_is_refused(ec2: EC2Client, refused: Any) -> None:
    with refused("InvalidAction"):
        ec2.describe_vpcs()


def test_filters_choose(ec2: EC2Client) -> None:
    a = run_one(ec2, TagSpecifications=tagged(Name="job *1", kind="x"), ClientToken="token-a")
    b = run_one(ec2, TagSpecifications=tagged(Name="job 2"), ClientToken="token-b")

    assert matching(ec2, "tag:Name", "job*") == {a, b}
    assert matching(ec2, "tag:Name", "job ?") == {b}
    assert matching(ec2, "tag:Name", r"job \*1") == {a}
    assert matching(ec2, "tag:Name", "job 2", "none") == {b}
    assert matching(ec2, "tag-key", "kind") == {a}
    assert matching(ec2, "instance-id", b, UNKNOWN) == {b}
    assert matching(ec2, "client-token", "token-a") == {a}
    assert matching(ec2, "instance-state-name", "pending") == {a, b}
    assert matching(ec2, "instance-state-name", "running", "stopped") == set()
    assert matching(ec2, "tag:kind", "X") == set()


def test_an_unknown_filter_is_refused(ec2: EC2Client, refused: Any) -> None:
    with refused("InvalidParameterValue"):
        matching(ec2, "colour", "red")


def test_pages_hold_everything_once_whatever_comes_between(ec2: EC2Client) -> None:
    ids = {one["InstanceId"] for one in run(ec2, MinCount=12, MaxCount=12)}
    first = ec2.describe_instances(MaxResults=5)
    run(ec2)

    pages = [first]
    while token := pages[-1].get("NextToken"):
        pages.append(ec2.describe_instances(MaxResults=5, NextToken=token))

    seen = [
        one["InstanceId"]
        for page in pages
        for group in page["Reservations"]
        for one in group["Instances"]
    ]
    assert len(seen) == len(set(seen))
    assert ids <= set(seen)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"MaxResults": 4}, "InvalidParameterValue"),
        ({"MaxResults": 1001}, "InvalidParameterValue"),
        ({"NextToken": "nonsense"}, "InvalidParameterValue"),
        ({"MaxResults": 5, "InstanceIds": [UNKNOWN]}, "InvalidParameterCombination"),
        ({"InstanceIds": [UNKNOWN]}, "InvalidInstanceID.NotFound"),
        ({"InstanceIds": ["i-nonsense"]}, "InvalidInstanceID.Malformed"),
    ],
)
def test_a_bad_question_is_refused(
    ec2: EC2Client, refused: Any, request_: dict[str, Any], code: str
) -> None:
    with refused(code):
        ec2.describe_instances(**request_)


def test_terminate_is_all_or_nothing_and_may_be_repeated(ec2: EC2Client, refused: Any) -> None:
    instance_id = run_one(ec2)

    with refused("InvalidInstanceID.NotFound"):
        ec2.terminate_instances(InstanceIds=[instance_id, UNKNOWN])
    assert describe(ec2)[0]["State"]["Name"] == "pending"
    [change] = ec2.terminate_instances(InstanceIds=[instance_id])["TerminatingInstances"]
    assert change["PreviousState"]["Name"] == "pending"
    assert change["CurrentState"]["Name"] == "shutting-down"
    terminate(ec2, instance_id)

    [found] = describe(ec2)
    assert found["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert "PublicIpAddress" not in found


def test_a_terminated_instance_is_seen_for_an_hour(
    ec2: EC2Client, clock: Clock, refused: Any
) -> None:
    instance_id = run_one(ec2)
    terminate(ec2, instance_id)

    clock.now += 3599
    assert len(describe(ec2, InstanceIds=[instance_id])) == 1
    clock.now += 2
    with refused("InvalidInstanceID.NotFound"):
        describe(ec2, InstanceIds=[instance_id])


def test_tags_can_be_added(ec2: EC2Client, refused: Any) -> None:
    instance_id = run_one(ec2, TagSpecifications=tagged(a="1", b="1"))

    ec2.create_tags(Resources=[instance_id], Tags=[{"Key": "b", "Value": "2"}])
    with refused("InvalidInstanceID.NotFound"):
        ec2.create_tags(Resources=[instance_id, UNKNOWN], Tags=[{"Key": "c", "Value": "3"}])

    [found] = describe(ec2)
    assert {tag["Key"]: tag["Value"] for tag in found["Tags"]} == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("instance_type", "is_of"),
    [
        ("t3.small", "x86_64"),
        ("g5.xlarge", "x86_64"),
        ("gr6.4xlarge", "x86_64"),
        ("p4de.24xlarge", "x86_64"),
        ("u-6tb1.metal", "x86_64"),
        ("m7i-flex.large", "x86_64"),
        ("a1.medium", "arm64"),
        ("t4g.nano", "arm64"),
        ("c6gn.large", "arm64"),
        ("g5g.xlarge", "arm64"),
        ("is4gen.medium", "arm64"),
    ],
)
def test_an_instance_types_name_says_its_architecture(instance_type: str, is_of: str) -> None:
    assert architecture(instance_type) == is_of


def test_an_arm_machine_takes_an_arm_image(ec2: EC2Client) -> None:
    [launched] = ec2.run_instances(
        ImageId=ARM64, InstanceType="t4g.small", MinCount=1, MaxCount=1
    )["Instances"]
    assert launched["Architecture"] == "arm64"


def test_image_and_type_have_to_be_of_one_architecture(ec2: EC2Client) -> None:
    [arm] = ec2.describe_instance_types(InstanceTypes=["m7g.large"])["InstanceTypes"]
    assert arm["ProcessorInfo"]["SupportedArchitectures"] == ["arm64"]
    with pytest.raises(ClientError, match="does not match the architecture 'x86_64'") as refused:
        ec2.run_instances(ImageId=X86_64, InstanceType="m7g.large", MinCount=1, MaxCount=1)
    assert refused.value.response["Error"]["Code"] == "InvalidParameterValue"


def test_a_root_volume_holds_the_image(ec2: EC2Client) -> None:
    [image] = ec2.describe_images(ImageIds=[X86_64])["Images"]
    [disk] = image["BlockDeviceMappings"]
    assert (disk["DeviceName"], disk["Ebs"]["VolumeSize"]) == (image["RootDeviceName"], 8)

    def launch(device: str, size: int) -> None:
        disks: Any = [{"DeviceName": device, "Ebs": {"VolumeSize": size}}]
        ec2.run_instances(
            ImageId=X86_64,
            InstanceType="t3.small",
            MinCount=1,
            MaxCount=1,
            BlockDeviceMappings=disks,
        )

    with pytest.raises(
        ClientError, match="Volume of size 7GB is smaller than snapshot"
    ) as refused:
        launch("/dev/xvda", 7)
    assert refused.value.response["Error"]["Code"] == "InvalidBlockDeviceMapping"
    launch("/dev/xvdb", 7)
    launch("/dev/xvda", 8)


def test_the_network_that_is_launched_into_can_be_read(ec2: EC2Client) -> None:
    subnets = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
    found = ec2.describe_subnets(SubnetIds=subnets)["Subnets"]
    assert [one["SubnetId"] for one in found] == subnets
    [launched] = ec2.run_instances(
        ImageId=X86_64, InstanceType="t3.small", MinCount=1, MaxCount=1, SubnetId=subnets[0]
    )["Instances"]
    assert found[0]["AvailabilityZone"] == launched["Placement"]["AvailabilityZone"]
    [group] = ec2.describe_security_groups(GroupIds=["sg-01234567"])["SecurityGroups"]
    assert group["IpPermissionsEgress"][0]["IpProtocol"] == "-1"
    vpcs = {group["VpcId"], *(one["VpcId"] for one in found)}
    own: Any = [{"Name": "association.subnet-id", "Values": subnets}]
    assert ec2.describe_route_tables(Filters=own)["RouteTables"] == []
    main: Any = [
        {"Name": "association.main", "Values": ["true"]},
        {"Name": "vpc-id", "Values": list(vpcs)},
    ]
    [table] = ec2.describe_route_tables(Filters=main)["RouteTables"]
    assert {route["DestinationCidrBlock"] for route in table["Routes"]} >= {"0.0.0.0/0"}
    assert ec2.describe_key_pairs(KeyNames=["k"])["KeyPairs"][0]["KeyName"] == "k"


def test_what_is_not_there_is_refused_by_ec2s_code(ec2: EC2Client, twin: Twin) -> None:
    with pytest.raises(ClientError, match=r"InvalidSubnetID\.NotFound"):
        ec2.describe_subnets(SubnetIds=["subnet-of-nobody"])
    with pytest.raises(ClientError, match=r"InvalidGroupId\.Malformed"):
        ec2.describe_security_groups(GroupIds=["group"])
    twin.faults.add("missing", call="DescribeSubnets")
    with pytest.raises(ClientError, match=r"InvalidSubnetID\.NotFound"):
        ec2.describe_subnets(SubnetIds=["subnet-0123456789abcdef0"])


def test_a_right_that_is_denied_is_denied_to_a_dry_run_too(ec2: EC2Client, twin: Twin) -> None:
    twin.faults.add("unauthorized", call="TerminateInstances")
    with pytest.raises(ClientError, match="UnauthorizedOperation"):
        ec2.terminate_instances(InstanceIds=[UNKNOWN], DryRun=True)
    with pytest.raises(ClientError, match="DryRunOperation"):
        ec2.create_tags(Resources=[UNKNOWN], Tags=[{"Key": "a", "Value": "b"}], DryRun=True)


def test_the_newest_stable_flatcar_can_be_found(ec2: EC2Client) -> None:
    images = ec2.describe_images(
        Owners=["075585003325"],
        Filters=[
            {"Name": "name", "Values": ["Flatcar-stable-*-hvm"]},
            {"Name": "architecture", "Values": ["x86_64"]},
            {"Name": "state", "Values": ["available"]},
        ],
    )["Images"]

    assert (
        max(images, key=lambda image: image["CreationDate"])["Name"]
        == "Flatcar-stable-4459.2.3-hvm"
    )
    assert run_one(ec2, ImageId=images[0]["ImageId"])
    assert ec2.describe_images(Owners=["123456789012"])["Images"] == []


def test_a_console_without_output_is_empty(ec2: EC2Client) -> None:
    assert ec2.get_console_output(InstanceId=run_one(ec2))["Output"] == ""


def test_a_status_is_of_running_instances_unless_all_are_asked_for(ec2: EC2Client) -> None:
    run_one(ec2)

    assert ec2.describe_instance_status()["InstanceStatuses"] == []
    [status] = ec2.describe_instance_status(IncludeAllInstances=True)["InstanceStatuses"]
    assert status["InstanceState"]["Name"] == "pending"


def test_a_directory_has_one_twin(tmp_path: Path) -> None:
    with Twin(tmp_path, engine="process"), pytest.raises(Conflict, match="another twin"):
        Twin(tmp_path, engine="process").start()
