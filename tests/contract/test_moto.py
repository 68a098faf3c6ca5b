"""What only moto shows: the twin has no subnets, groups and keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from atemporal.cloud import Cloud
from atemporal.model import AttemptRef, Launch

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

pytestmark = pytest.mark.parametrize("endpoint", ["moto"], indirect=True, scope="session")

NewRef = Callable[[], AttemptRef]


def test_a_named_key_groups_and_subnet_reach_the_instance(
    ec2: EC2Client, cloud: Cloud, launch: Launch, new_ref: NewRef
) -> None:
    subnet = ec2.describe_subnets()["Subnets"][0]
    group = ec2.create_security_group(
        GroupName="jobs", Description="no way in", VpcId=subnet["VpcId"]
    )["GroupId"]
    ec2.create_key_pair(KeyName="operator")
    update = {
        "subnet_id": subnet["SubnetId"],
        "security_group_ids": (group,),
        "key_name": "operator",
    }

    instance = cloud.run(new_ref(), launch.model_copy(update=update), b"#!/bin/true\n")

    response = ec2.describe_instances(InstanceIds=[instance.id])
    item = response["Reservations"][0]["Instances"][0]
    assert item["SubnetId"] == subnet["SubnetId"]
    assert [one["GroupId"] for one in item["SecurityGroups"]] == [group]
    assert item["KeyName"] == "operator"
