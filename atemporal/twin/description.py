"""How instances look on the wire, and which filters DescribeInstances has.

Promise: pure; an instance's facts go into EC2's names here only. A machine of the twin is reached
on the loopback address, so that is its public address while it is pending or running; like EC2, an
instance that is over has none.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any

from atemporal.twin.books import (
    PENDING,
    RUNNING,
    STATE_CODES,
    TERMINATED,
    Instance,
    Reservation,
)
from atemporal.twin.filters import Values
from atemporal.twin.wire import listed, timestamp

OWNER = "123456789012"


def public_dns(instance: Instance) -> str | None:
    """A name of the loopback address (RFC 6761), as long as the instance runs."""
    return f"{instance.id}.localhost" if instance.state == RUNNING else None


def public_ip(instance: Instance) -> str | None:
    """The loopback address, as long as the instance runs."""
    return "127.0.0.1" if instance.state == RUNNING else None


FILTERS: Mapping[str, Values[Instance]] = {
    "instance-id": lambda i: [i.id],
    "instance-state-name": lambda i: [i.state],
    "instance-state-code": lambda i: [str(STATE_CODES[i.state])],
    "image-id": lambda i: [i.parameters.get("ImageId")],
    "instance-type": lambda i: [i.parameters.get("InstanceType")],
    "instance-lifecycle": lambda i: [lifecycle(i)],
    "key-name": lambda i: [i.parameters.get("KeyName")],
    "subnet-id": lambda i: [i.parameters.get("SubnetId")],
    "availability-zone": lambda i: [i.zone],
    "launch-time": lambda i: [timestamp(i.launched_at)],
    "reservation-id": lambda i: [i.reservation_id],
    "private-ip-address": lambda i: [i.private_ip],
    "ip-address": lambda i: [public_ip(i)],
    "dns-name": lambda i: [public_dns(i)],
    "state-reason-code": lambda i: [i.state_reason[0] if i.state_reason else None],
}


def reservations(
    instances: Iterable[Instance], of: Mapping[str, Reservation]
) -> list[dict[str, Any]]:
    """Group instances by the call that launched them; `of` has each instance's reservation."""
    groups: dict[str, list[Instance]] = {}
    for instance in instances:
        groups.setdefault(instance.reservation_id, []).append(instance)
    return [reservation(of[members[0].id], members) for members in groups.values()]


def reservation(made_by: Reservation, members: Iterable[Instance]) -> dict[str, Any]:
    """One RunInstances call with those of its instances that are asked for."""
    return {
        "reservationId": made_by.id,
        "ownerId": OWNER,
        "groupSet": [],
        "instancesSet": [_instance(member, made_by.token) for member in members],
    }


def state(name: str) -> dict[str, Any]:
    """A state's number and name."""
    return {"code": STATE_CODES[name], "name": name}


def lifecycle(instance: Instance) -> str | None:
    """`spot`, or nothing for on-demand."""
    market = instance.parameters.get("InstanceMarketOptions", {}).get("MarketType")
    return "spot" if market == "spot" else None


def console_output(raw: bytes) -> str:
    """What GetConsoleOutput gives of a console."""
    return base64.b64encode(raw[-64 * 1024 :]).decode()


def _instance(instance: Instance, token: str) -> dict[str, Any]:
    asked = instance.parameters
    over = instance.state == TERMINATED
    options = asked.get("MetadataOptions", {})
    profile = asked.get("IamInstanceProfile")
    private_dns = f"ip-{instance.private_ip.replace('.', '-')}.ec2.internal"
    return {
        "instanceId": instance.id,
        "imageId": asked["ImageId"],
        "instanceState": state(instance.state),
        "privateDnsName": "" if over else private_dns,
        "dnsName": public_dns(instance) or "",
        "reason": instance.transition_reason,
        "keyName": asked.get("KeyName"),
        "amiLaunchIndex": instance.index,
        "productCodes": [],
        "instanceType": asked["InstanceType"],
        "launchTime": timestamp(instance.launched_at),
        "placement": {
            "availabilityZone": instance.zone,
            "groupName": "",
            "tenancy": "default",
        },
        "monitoring": {"state": "disabled"},
        "subnetId": None if over else asked.get("SubnetId"),
        "privateIpAddress": None if over else instance.private_ip,
        "ipAddress": public_ip(instance),
        "sourceDestCheck": True,
        "groupSet": [
            {"groupId": group, "groupName": group}
            for group in listed(asked.get("SecurityGroupId"), "SecurityGroupId")
        ],
        "stateReason": (
            {"code": instance.state_reason[0], "message": instance.state_reason[1]}
            if instance.state_reason
            else {"code": "pending", "message": "pending"}
            if instance.state == PENDING
            else None
        ),
        "architecture": "x86_64",
        "rootDeviceType": "ebs",
        "rootDeviceName": "/dev/xvda",
        "blockDeviceMapping": [] if over else [_root_device(instance)],
        "virtualizationType": "hvm",
        "instanceLifecycle": lifecycle(instance),
        "clientToken": token,
        "tagSet": tag_set(instance.tags),
        "hypervisor": "xen",
        "networkInterfaceSet": [],
        "iamInstanceProfile": (
            {
                "arn": profile.get("Arn")
                or f"arn:aws:iam::{OWNER}:instance-profile/{profile['Name']}"
            }
            if profile
            else None
        ),
        "ebsOptimized": False,
        "metadataOptions": {
            "state": "applied",
            "httpTokens": options.get("HttpTokens", "optional"),
            "httpPutResponseHopLimit": options.get("HttpPutResponseHopLimit", "1"),
            "httpEndpoint": options.get("HttpEndpoint", "enabled"),
        },
    }


def tag_set(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as a list, by key."""
    return [{"key": key, "value": value} for key, value in sorted(tags.items())]


def _root_device(instance: Instance) -> dict[str, Any]:
    return {
        "deviceName": "/dev/xvda",
        "ebs": {
            "volumeId": instance.volume_id,
            "status": "attached",
            "attachTime": timestamp(instance.launched_at),
            "deleteOnTermination": True,
        },
    }
