"""How instances look on the wire, and which filters DescribeInstances has.

Promise: pure; an instance's facts get EC2's names here only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from atemporal.architecture import architecture
from atemporal.twin.ec2.filters import Values
from atemporal.twin.ec2.wire import listed, timestamp
from atemporal.twin.state import OWNER, PENDING, STATE_CODES, TERMINATED, Instance, Reservation

FILTERS: Mapping[str, Values[Instance]] = {
    "instance-id": lambda i: [i.id],
    "instance-state-name": lambda i: [i.state],
    "instance-state-code": lambda i: [str(STATE_CODES[i.state])],
    "image-id": lambda i: [i.parameters.get("ImageId")],
    "instance-type": lambda i: [i.parameters.get("InstanceType")],
    "instance-lifecycle": lambda i: [_lifecycle(i)],
    "key-name": lambda i: [i.parameters.get("KeyName")],
    "subnet-id": lambda i: [i.parameters.get("SubnetId")],
    "availability-zone": lambda i: [i.zone],
    "launch-time": lambda i: [timestamp(i.launched_at)],
    "reservation-id": lambda i: [i.reservation_id],
    "private-ip-address": lambda i: [i.private_ip],
    "ip-address": lambda i: [i.public_ip],
    "dns-name": lambda i: [i.public_dns],
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
    """One RunInstances call, with some of its instances."""
    return {
        "reservationId": made_by.id,
        "ownerId": OWNER,
        "groupSet": [],
        "instancesSet": [_instance(member, made_by.token) for member in members],
    }


def state(name: str) -> dict[str, Any]:
    """A state's number and name."""
    return {"code": STATE_CODES[name], "name": name}


def _lifecycle(instance: Instance) -> str | None:
    """`spot`, or nothing for on-demand."""
    return "spot" if instance.capacity_type == "spot" else None


def _instance(instance: Instance, token: str) -> dict[str, Any]:
    requested = instance.parameters
    over = instance.state == TERMINATED
    options = requested.get("MetadataOptions", {})
    profile = requested.get("IamInstanceProfile")
    private_dns = f"ip-{instance.private_ip.replace('.', '-')}.ec2.internal"
    return {
        "instanceId": instance.id,
        "imageId": requested["ImageId"],
        "instanceState": state(instance.state),
        "privateDnsName": "" if over else private_dns,
        "dnsName": instance.public_dns or "",
        "reason": instance.transition_reason,
        "keyName": requested.get("KeyName"),
        "amiLaunchIndex": instance.index,
        "productCodes": [],
        "instanceType": requested["InstanceType"],
        "launchTime": timestamp(instance.launched_at),
        "placement": {
            "availabilityZone": instance.zone,
            "groupName": "",
            "tenancy": "default",
        },
        "monitoring": {"state": "disabled"},
        "subnetId": None if over else requested.get("SubnetId"),
        "privateIpAddress": None if over else instance.private_ip,
        "ipAddress": instance.public_ip,
        "sourceDestCheck": True,
        "groupSet": [
            {"groupId": group, "groupName": group}
            for group in listed(requested.get("SecurityGroupId"), "SecurityGroupId")
        ],
        "stateReason": (
            {"code": instance.state_reason[0], "message": instance.state_reason[1]}
            if instance.state_reason
            else {"code": "pending", "message": "pending"}
            if instance.state == PENDING
            else None
        ),
        "architecture": architecture(requested["InstanceType"]),
        "rootDeviceType": "ebs",
        "rootDeviceName": "/dev/xvda",
        "blockDeviceMapping": [] if over else [_root_device(instance)],
        "virtualizationType": "hvm",
        "instanceLifecycle": _lifecycle(instance),
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
