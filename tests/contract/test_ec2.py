"""What the product relies on EC2 for, asked of moto and of the twin in the same words."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatch
from itertools import chain
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError

from atemporal.cloud import Cloud, CloudError, NoInstance, Rejected, WrongImage
from atemporal.cloud import ec2 as adapter
from atemporal.model import AttemptRef, Launch
from atemporal.model.job_spec import MOST_LABELS
from atemporal.settings import MOST_TAGS, Settings
from atemporal.twin.catalogue import FLATCAR_OWNER

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

pytestmark = pytest.mark.parametrize("endpoint", ["moto", "twin"], indirect=True, scope="session")

NewRef = Callable[[], AttemptRef]
NOTHING = b"#!/bin/true\n"
NOBODY = "i-0123456789abcdef0"
NO_VOLUME = "vol-0123456789abcdef0"
ENDED = {"shutting-down", "terminated"}


def code_of(error: pytest.ExceptionInfo[ClientError]) -> str:
    return error.value.response["Error"]["Code"]


def launch_many(ec2: EC2Client, count: int, launch: Launch, tag: str) -> list[str]:
    response = ec2.run_instances(
        ImageId=launch.image_id,
        InstanceType="t3.small",
        MinCount=count,
        MaxCount=count,
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "batch", "Value": tag}]}],
    )
    return [instance["InstanceId"] for instance in response["Instances"]]


def test_the_instance_carries_the_attempts_tags_from_the_launch(
    cloud: Cloud, launch: Launch, new_ref: NewRef
) -> None:
    ref = new_ref()
    before = datetime.now(UTC)

    instance = cloud.run(ref, launch, NOTHING)

    assert instance.state in {"pending", "running"}
    assert instance.ref == ref
    assert instance.client_token == f"{ref.id}.0"
    assert instance.launched_at is not None
    assert abs(instance.launched_at - before) < timedelta(minutes=1)
    assert instance.tags["Name"] == f"Atemporal - Job {ref.job_id}"
    assert instance.tags["atemporal:job"] == str(ref.job_id)
    assert instance.tags["atemporal:attempt"] == "1"
    assert set(instance.tags) == {
        "Name",
        "atemporal:deployment",
        "atemporal:job",
        "atemporal:attempt",
    }


def test_the_intent_says_which_installation_the_instance_is_of(
    cloud: Cloud, launch: Launch, new_ref: NewRef
) -> None:
    ours, ref = uuid4(), new_ref()
    launch = launch.model_copy(update={"installation": ours})
    instance = cloud.run(ref, launch, NOTHING)
    assert instance.tags["atemporal:installation"] == str(ours)
    assert [one.id for one in cloud.find(ref)] == [instance.id]
    assert not instance.foreign_to(ours)
    assert instance.foreign_to(uuid4())


def test_the_launch_is_read_back_as_it_was_asked_for(
    ec2: EC2Client, cloud: Cloud, launch: Launch, new_ref: NewRef
) -> None:
    instance = cloud.run(new_ref(), launch, NOTHING)

    response = ec2.describe_instances(InstanceIds=[instance.id])
    item = response["Reservations"][0]["Instances"][0]
    assert item["ImageId"] == launch.image_id
    assert item["InstanceType"] == "t3.small"
    assert item["MetadataOptions"]["HttpTokens"] == "required"
    assert item["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert item["MetadataOptions"]["HttpEndpoint"] == "enabled"
    (disk,) = item["BlockDeviceMappings"]
    assert disk["DeviceName"] == item["RootDeviceName"] == "/dev/xvda"
    assert disk["Ebs"]["DeleteOnTermination"] is True
    shutdown = ec2.describe_instance_attribute(
        InstanceId=instance.id, Attribute="instanceInitiatedShutdownBehavior"
    )
    assert shutdown["InstanceInitiatedShutdownBehavior"]["Value"] == "terminate"


def test_user_data_arrives_byte_for_byte(
    ec2: EC2Client, cloud: Cloud, launch: Launch, new_ref: NewRef
) -> None:
    user_data = b"#!/bin/true\n" + "naïve ‘text’ $HOME %h\r\n".encode() + bytes(range(256))

    instance = cloud.run(new_ref(), launch, user_data)

    response = ec2.describe_instance_attribute(InstanceId=instance.id, Attribute="userData")
    assert base64.b64decode(response["UserData"]["Value"]) == user_data


def test_an_instance_is_found_by_its_attempt_and_by_nothing_else(
    cloud: Cloud, launch: Launch, new_ref: NewRef
) -> None:
    ref = new_ref()
    later = AttemptRef(ref.job_id, 2)
    first, second = cloud.run(ref, launch, NOTHING), cloud.run(later, launch, NOTHING)

    assert [instance.id for instance in cloud.find(ref)] == [first.id]
    assert [instance.id for instance in cloud.find(later)] == [second.id]
    assert cloud.find(new_ref()) == []


def test_a_deployment_sees_its_own_instances_only(
    ec2: EC2Client, cloud: Cloud, launch: Launch, new_ref: NewRef
) -> None:
    mine = {cloud.run(new_ref(), launch, NOTHING).id for _ in range(2)}
    other = launch_many(ec2, 1, launch, uuid4().hex)

    assert {instance.id for instance in cloud.all()} == mine
    ec2.terminate_instances(InstanceIds=other)


def test_a_listing_of_many_pages_is_whole(
    cloud: Cloud, launch: Launch, new_ref: NewRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "PAGE", 5)
    ids = {cloud.run(new_ref(), launch, NOTHING).id for _ in range(7)}

    listed = [instance.id for instance in cloud.all()]

    assert len(listed) == 7
    assert set(listed) == ids


def test_pages_follow_one_another(ec2: EC2Client, launch: Launch) -> None:
    tag = uuid4().hex
    ids = [launch_many(ec2, 1, launch, tag)[0] for _ in range(7)]
    pages = ec2.get_paginator("describe_instances").paginate(
        Filters=[{"Name": "tag:batch", "Values": [tag]}], PaginationConfig={"PageSize": 5}
    )

    listed = [[i["InstanceId"] for r in p["Reservations"] for i in r["Instances"]] for p in pages]

    assert len(listed) > 1
    assert sorted(chain(*listed)) == sorted(ids)
    ec2.terminate_instances(InstanceIds=ids)


def test_asking_for_ids_and_for_pages_at_once_is_refused(
    ec2: EC2Client, cloud: Cloud, launch: Launch, new_ref: NewRef
) -> None:
    instance = cloud.run(new_ref(), launch, NOTHING)

    with pytest.raises(ClientError) as refused:
        ec2.describe_instances(InstanceIds=[instance.id], MaxResults=5)

    assert code_of(refused) == "InvalidParameterCombination"


@pytest.mark.parametrize(
    ("name", "value"),
    [("tag:batch", "{tag}"), ("tag:batch", "{start}*"), ("instance-state-name", "running")],
)
def test_filters_narrow(ec2: EC2Client, launch: Launch, name: str, value: str) -> None:
    tag = uuid4().hex
    ids = launch_many(ec2, 2, launch, tag)
    ec2.get_waiter("instance_running").wait(
        InstanceIds=ids, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    chosen = value.format(tag=tag, start=tag[:8])

    response = ec2.describe_instances(
        Filters=[
            {"Name": "instance-id", "Values": [ids[0], NOBODY]},
            {"Name": "tag-key", "Values": ["batch"]},
            {"Name": name, "Values": [chosen]},
        ]
    )
    found = [i["InstanceId"] for r in response["Reservations"] for i in r["Instances"]]
    assert found == [ids[0]]

    none = ec2.describe_instances(
        Filters=[
            {"Name": "instance-id", "Values": [ids[0]]},
            {"Name": name, "Values": ["nothing-like-it"]},
        ]
    )
    assert none["Reservations"] == []
    ec2.terminate_instances(InstanceIds=ids)


def test_describing_by_id_leaves_out_who_is_somebody_elses(
    ec2: EC2Client, cloud: Cloud, launch: Launch
) -> None:
    theirs = launch_many(ec2, 1, launch, uuid4().hex)

    assert cloud.describe(theirs) == {}
    assert set(cloud.describe(theirs, tagged=False)) == set(theirs)
    ec2.terminate_instances(InstanceIds=theirs)


def test_describing_by_id_leaves_out_who_is_unknown(
    ec2: EC2Client, cloud: Cloud, launch: Launch, new_ref: NewRef
) -> None:
    instance = cloud.run(new_ref(), launch, NOTHING)

    found = cloud.describe([NOBODY, instance.id, instance.id])

    assert list(found) == [instance.id]
    assert found[instance.id].ref == instance.ref
    assert cloud.describe([NOBODY]) == {}
    with pytest.raises(ClientError) as unknown:
        ec2.describe_instances(InstanceIds=[instance.id, NOBODY])
    assert code_of(unknown) == "InvalidInstanceID.NotFound"


def test_a_batch_with_an_unknown_id_ends_no_instance(
    ec2: EC2Client, cloud: Cloud, launch: Launch, new_ref: NewRef
) -> None:
    instance = cloud.run(new_ref(), launch, NOTHING)

    with pytest.raises(ClientError) as unknown:
        ec2.terminate_instances(InstanceIds=[instance.id, NOBODY])

    assert code_of(unknown) == "InvalidInstanceID.NotFound"
    assert cloud.describe([instance.id])[instance.id].state not in ENDED


def test_an_unknown_id_is_reported_and_the_others_end(
    cloud: Cloud, launch: Launch, new_ref: NewRef
) -> None:
    ids = [cloud.run(new_ref(), launch, NOTHING).id for _ in range(3)]

    failures = cloud.terminate([ids[0], NOBODY, *ids[1:]])

    assert list(failures) == [NOBODY]
    assert isinstance(failures[NOBODY], NoInstance)
    assert {instance.state for instance in cloud.describe(ids).values()} <= ENDED


def test_ending_an_instance_again_is_no_failure_and_it_stays_listed(
    ec2: EC2Client, cloud: Cloud, launch: Launch, new_ref: NewRef
) -> None:
    instance = cloud.run(new_ref(), launch, NOTHING)

    assert cloud.terminate([instance.id]) == {}
    assert cloud.terminate([instance.id]) == {}

    ec2.get_waiter("instance_terminated").wait(
        InstanceIds=[instance.id], WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    (ended,) = cloud.all()
    assert ended.gone
    assert ended.id == instance.id
    assert ended.state_reason == "Client.UserInitiatedShutdown"
    assert ended.ended_at is not None
    assert abs(datetime.now(UTC) - ended.ended_at) < timedelta(minutes=2)
    assert cloud.terminate([instance.id]) == {}


def test_a_dry_run_launches_nothing(ec2: EC2Client, launch: Launch) -> None:
    tag = uuid4().hex

    with pytest.raises(ClientError) as refused:
        ec2.run_instances(
            ImageId=launch.image_id,
            InstanceType="t3.small",
            MinCount=1,
            MaxCount=1,
            DryRun=True,
            TagSpecifications=[
                {"ResourceType": "instance", "Tags": [{"Key": "batch", "Value": tag}]}
            ],
        )

    assert code_of(refused) == "DryRunOperation"
    listed = ec2.describe_instances(Filters=[{"Name": "tag:batch", "Values": [tag]}])
    assert listed["Reservations"] == []


@pytest.mark.parametrize("owner", ["099720109477", "137112412989"])
def test_an_image_of_another_family_is_not_launched(
    ec2: EC2Client, cloud: Cloud, launch: Launch, new_ref: NewRef, owner: str
) -> None:
    other, *_ = ec2.describe_images(Owners=[owner])["Images"]

    with pytest.raises(WrongImage, match=other["Name"]):
        cloud.run(new_ref(), launch.model_copy(update={"image_id": other["ImageId"]}), NOTHING)

    assert cloud.all() == []


def test_the_newest_stable_image_of_its_owner_is_chosen(ec2: EC2Client, cloud: Cloud) -> None:
    images = ec2.describe_images(Owners=[FLATCAR_OWNER])["Images"]
    stable = [
        image
        for image in images
        if fnmatch(image["Name"], "Flatcar-stable-*-hvm") and image["Architecture"] == "x86_64"
    ]
    newest = max(stable, key=lambda image: image["CreationDate"])
    others = [image for image in images if image["CreationDate"] >= newest["CreationDate"]]
    assert len(stable) > 1
    assert len(others) > 1, "a newer image of another kind has to be there to be passed over"

    assert cloud.resolve_image() == newest["ImageId"]
    assert newest["RootDeviceName"] == "/dev/xvda"
    named = ec2.describe_images(ImageIds=[newest["ImageId"]])["Images"]
    assert [image["Name"] for image in named] == [newest["Name"]]


@pytest.mark.parametrize("architecture", ["x86_64", "arm64"])
@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("flatcar", "Flatcar-stable-4459.2.3{}-hvm"),
        ("flatcar-ignition", "Flatcar-stable-4459.2.3{}-hvm"),
        ("fcos", "fedora-coreos-44.20260802.3.1-{}"),
        ("amazon-linux", "al2023-ami-2023.8.20260610.0-kernel-6.1-{}"),
        ("debian", "debian-13-{}-20260601-2117"),
        ("ubuntu", "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-{}-server-20260601"),
    ],
)
def test_each_family_has_an_image_for_each_architecture(
    endpoint: str, ec2: EC2Client, family: str, name: str, architecture: str
) -> None:
    settings = Settings(ec2_endpoint_url=endpoint, os_family=family)
    with Cloud(settings) as cloud:
        found = cloud.resolve_image(architecture)
    [image] = ec2.describe_images(ImageIds=[found])["Images"]
    assert image["Architecture"] == architecture
    before, after = name.split("{}")
    assert image["Name"].startswith(before)
    assert image["Name"].endswith(after)


def test_the_settings_type_says_which_processors_an_image_is_for(
    endpoint: str, ec2: EC2Client
) -> None:
    settings = Settings(ec2_endpoint_url=endpoint, instance_type="m7g.large")
    with Cloud(settings) as cloud:
        found = cloud.resolve_image()
    [image] = ec2.describe_images(ImageIds=[found])["Images"]
    assert image["Architecture"] == "arm64"


def test_the_endpoint_may_come_from_the_sdks_own_variable(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", endpoint)

    with Cloud(Settings(deployment="nobody")) as cloud:
        assert cloud.all() == []


def test_tags_can_be_added_later(
    ec2: EC2Client, cloud: Cloud, launch: Launch, new_ref: NewRef
) -> None:
    instance = cloud.run(new_ref(), launch, NOTHING)

    ec2.create_tags(Resources=[instance.id], Tags=[{"Key": "Name", "Value": "mine now"}])

    assert instance.ref is not None
    (found,) = cloud.find(instance.ref)
    assert found.tags == {**instance.tags, "Name": "mine now"}


def tags_now(ec2: EC2Client, resource: str) -> dict[str, str]:
    """The tags of an instance or a volume."""
    found = (
        ec2.describe_volumes(VolumeIds=[resource])["Volumes"]
        if resource.startswith("vol-")
        else ec2.describe_instances(InstanceIds=[resource])["Reservations"][0]["Instances"]
    )
    return {tag["Key"]: tag["Value"] for tag in found[0]["Tags"]}


def test_the_tags_of_deployment_and_labels_are_on_instance_and_volume_from_the_launch(
    ec2: EC2Client, cloud: Cloud, launch: Launch, new_ref: NewRef
) -> None:
    ref = new_ref()
    chosen = launch.model_copy(update={"tags": {"cost-center": "42"}, "label_tags": ("*",)})

    instance = cloud.run(ref, chosen.labelled({"atemporal/schedule": "nightly"}), NOTHING)

    more = {"cost-center": "42", "atemporal/schedule": "nightly"}
    assert instance.tags.items() >= more.items()
    assert instance.ref == ref
    (volume,) = cloud.volumes_of([instance.id])[instance.id]
    assert tags_now(ec2, volume) == instance.tags == tags_now(ec2, instance.id)


def test_a_resource_may_have_as_many_tags_as_the_longest_launch_gives_it(
    cloud: Cloud, launch: Launch, new_ref: NewRef
) -> None:
    full = {f"k{number:02}" + "x" * 125: "v" * 256 for number in range(MOST_TAGS)}
    labels = {f"l{number:02}": "v" * 255 for number in range(MOST_LABELS)}
    chosen = launch.model_copy(
        update={"tags": full, "label_tags": ("*",), "installation": uuid4()}
    )

    (instance,) = cloud.run_group(uuid4(), chosen, 1, NOTHING)
    cloud.tag([instance.id], labels, new_ref())

    (found,) = cloud.describe([instance.id]).values()
    assert len(found.tags) == 50
    with pytest.raises(CloudError) as full_up:
        cloud.tag([instance.id], {"one": "more"})
    assert full_up.value.code == "TagLimitExceeded"


def test_the_instances_of_a_group_and_their_volumes_are_tagged_together(
    ec2: EC2Client, cloud: Cloud, launch: Launch, new_ref: NewRef
) -> None:
    group_id, tagged = uuid4(), launch.model_copy(update={"tags": {"team": "platform"}})
    instances = cloud.run_group(group_id, tagged, 3, NOTHING)
    ids = [one.id for one in instances]

    volumes = cloud.volumes_of(ids)
    assert set(volumes) == set(ids)
    of_all = [one for each in volumes.values() for one in each]
    cloud.tag([*ids, *of_all], {"batch": "7"})
    ref = new_ref()
    cloud.tag([ids[0], *volumes[ids[0]]], {"batch": "7"}, ref)

    shared = {"team": "platform", "batch": "7", "atemporal:group": str(group_id)}
    for resource in (*ids, *of_all):
        assert tags_now(ec2, resource).items() >= shared.items()
    own = [one for one in (*ids, *of_all) if "atemporal:job" in tags_now(ec2, one)]
    assert own == [ids[0], *volumes[ids[0]]]
    assert cloud.describe(ids)[ids[0]].ref == ref


def test_volumes_of_other_deployments_are_nobodys(
    cloud: Cloud, endpoint: str, launch: Launch, new_ref: NewRef
) -> None:
    instance = cloud.run(new_ref(), launch, NOTHING)

    with Cloud(Settings(ec2_endpoint_url=endpoint, deployment="nobody")) as other:
        assert other.volumes_of([instance.id]) == {}
    assert list(cloud.volumes_of([instance.id])) == [instance.id]


def test_a_spot_request_is_launched_as_spot(
    ec2: EC2Client, cloud: Cloud, launch: Launch, new_ref: NewRef
) -> None:
    instance = cloud.run(new_ref(), launch.model_copy(update={"capacity_type": "spot"}), NOTHING)

    response = ec2.describe_instances(InstanceIds=[instance.id])
    assert response["Reservations"][0]["Instances"][0]["InstanceLifecycle"] == "spot"
    assert (
        "InstanceLifecycle"
        not in ec2.describe_instances(InstanceIds=[cloud.run(new_ref(), launch, NOTHING).id])[
            "Reservations"
        ][0]["Instances"][0]
    )


def test_the_console_of_nobody_is_empty_text(ec2: EC2Client, cloud: Cloud) -> None:
    assert cloud.console(NOBODY) == ""
    with pytest.raises(ClientError) as unknown:
        ec2.get_console_output(InstanceId=NOBODY)
    assert code_of(unknown) == "InvalidInstanceID.NotFound"


def test_the_volume_carries_the_instances_tags_and_goes_with_it(
    ec2: EC2Client, cloud: Cloud, launch: Launch, new_ref: NewRef
) -> None:
    instance = cloud.run(new_ref(), launch.model_copy(update={"disk_gb": 33}), NOTHING)

    (volume,) = ec2.describe_volumes(
        Filters=[{"Name": "attachment.instance-id", "Values": [instance.id]}]
    )["Volumes"]
    assert {tag["Key"]: tag["Value"] for tag in volume["Tags"]} == instance.tags
    assert volume["Size"] == 33
    assert volume["Encrypted"] is True

    assert cloud.terminate([instance.id]) == {}
    ec2.get_waiter("instance_terminated").wait(
        InstanceIds=[instance.id], WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    left = ec2.describe_volumes(Filters=[{"Name": "volume-id", "Values": [volume["VolumeId"]]}])
    assert left["Volumes"] == []


def launch_keeping_its_disk(ec2: EC2Client, launch: Launch, **tags: str) -> tuple[str, str]:
    """Launch and end an instance whose volume stays; return the ids of both."""
    response = ec2.run_instances(
        ImageId=launch.image_id,
        InstanceType="t3.small",
        MinCount=1,
        MaxCount=1,
        BlockDeviceMappings=[
            {"DeviceName": "/dev/xvda", "Ebs": {"DeleteOnTermination": False, "VolumeSize": 9}}
        ],
        TagSpecifications=[
            {
                "ResourceType": "volume",
                "Tags": [{"Key": key.replace("_", ":"), "Value": tags[key]} for key in tags],
            }
        ],
    )
    instance_id = response["Instances"][0]["InstanceId"]
    (volume,) = ec2.describe_volumes(
        Filters=[{"Name": "attachment.instance-id", "Values": [instance_id]}]
    )["Volumes"]
    return instance_id, volume["VolumeId"]


def test_free_volumes_of_the_deployment_are_listed_and_deleted_and_no_others(
    ec2: EC2Client, cloud: Cloud, launch: Launch, new_ref: NewRef
) -> None:
    ref = new_ref()
    mine = cloud._settings.deployment
    job = {"atemporal_job": str(ref.job_id), "atemporal_attempt": str(ref.number)}
    leftover = launch_keeping_its_disk(ec2, launch, atemporal_deployment=mine, **job)
    theirs = launch_keeping_its_disk(ec2, launch, atemporal_deployment=f"{mine}x", **job)
    untagged = launch_keeping_its_disk(ec2, launch, Name="somebody's")
    used = cloud.run(ref, launch, NOTHING)
    assert cloud.volumes() == [], "they are in use"
    gone = [leftover[0], theirs[0], untagged[0]]
    ec2.terminate_instances(InstanceIds=gone)
    ec2.get_waiter("instance_terminated").wait(
        InstanceIds=gone, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )

    (volume,) = cloud.volumes()
    assert (volume.id, volume.state, volume.ref) == (leftover[1], "available", ref)
    assert abs(datetime.now(UTC) - volume.created_at) < timedelta(minutes=2)

    (held,) = ec2.describe_volumes(
        Filters=[{"Name": "attachment.instance-id", "Values": [used.id]}]
    )["Volumes"]
    failures = cloud.delete_volumes([NO_VOLUME, volume.id, held["VolumeId"], volume.id])
    assert list(failures) == [held["VolumeId"]], "gone is gone, and one in use is refused"
    assert isinstance(failures[held["VolumeId"]], Rejected)
    assert cloud.volumes() == []
    for _, other in (theirs, untagged):
        (there,) = ec2.describe_volumes(VolumeIds=[other])["Volumes"]
        assert there["State"] == "available"
        ec2.delete_volume(VolumeId=other)


def test_the_vcpus_of_types_and_none_of_what_is_no_type(cloud: Cloud) -> None:
    wanted = ["t3.small", "c5.2xlarge", "m9.nosuch"]
    assert cloud.vcpus(wanted) == {"t3.small": 2, "c5.2xlarge": 8}
