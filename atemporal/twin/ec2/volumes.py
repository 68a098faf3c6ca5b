"""The root volumes of the twin's instances: DescribeVolumes and DeleteVolume, no more.

Promise: a volume is in use while its instance is there, and deleted with it. Where the launch asked
for no DeleteOnTermination it stays, available, until it is deleted or its instance is forgotten.
Deletions are files beside the machine's, so they outlive the twin.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from atemporal.twin.ec2.account import Account
from atemporal.twin.ec2.action import Parameters, Response
from atemporal.twin.ec2.description import tag_set
from atemporal.twin.ec2.filters import Values, select
from atemporal.twin.ec2.wire import ApiError, boolean, invalid, listed, timestamp
from atemporal.twin.state import TERMINATED, Instance, State

_DELETED = "volume-deleted"
_FILTERS: Mapping[str, Values[Instance]] = {
    "volume-id": lambda i: [i.volume_id],
    "status": lambda i: [_status(i)],
    "attachment.instance-id": lambda i: [i.id] if _attached(i) else [],
}


def describe(account: Account, parameters: Parameters) -> Response:
    """DescribeVolumes."""
    state = account.state
    with state.lock:
        there = {one.volume_id: one for one in state.instances() if _exists(state, one)}
    ids = listed(parameters.get("VolumeId"), "VolumeId")
    for volume_id in ids:
        if volume_id not in there:
            raise _unknown(volume_id)
    found = [there[one] for one in ids] if ids else list(there.values())
    chosen = select(found, parameters, _FILTERS, lambda i: i.volume_tags)
    # One page: EC2, too, may return fewer or more than were asked for.
    return {"volumeSet": [_volume(one) for one in chosen], "nextToken": None}


def delete(account: Account, parameters: Parameters) -> Response:
    """DeleteVolume."""
    state = account.state
    volume_id = parameters.get("VolumeId", "")
    if not re.fullmatch(r"vol-(?:[0-9a-f]{8}|[0-9a-f]{17})", volume_id):
        raise invalid("VolumeId", volume_id)
    with state.lock:
        for one in state.instances():
            if one.volume_id == volume_id and _exists(state, one):
                if _attached(one):
                    text = f"Volume {volume_id} is currently attached to {one.id}"
                    raise ApiError("VolumeInUse", text)
                (state.directory(one.id) / _DELETED).touch()
                return {"return": True}
    raise _unknown(volume_id)


def _attached(instance: Instance) -> bool:
    return instance.state != TERMINATED


def _status(instance: Instance) -> str:
    return "in-use" if _attached(instance) else "available"


def _exists(state: State, instance: Instance) -> bool:
    if _attached(instance):
        return True
    return (
        not _deleted_on_termination(instance)
        and not (state.directory(instance.id) / _DELETED).exists()
    )


def _deleted_on_termination(instance: Instance) -> bool:
    """Whether the volume is deleted with its instance, which is the default for a root device."""
    return _requested(instance).get("DeleteOnTermination", "true").lower() != "false"


def _requested(instance: Instance) -> dict[str, str]:
    """What the launch asked of the root device; it is the only one that the twin has."""
    mappings = listed(instance.parameters.get("BlockDeviceMapping"), "BlockDeviceMapping")
    return next((mapping["Ebs"] for mapping in mappings if "Ebs" in mapping), {})


def _volume(instance: Instance) -> dict[str, Any]:
    attachment = {
        "volumeId": instance.volume_id,
        "instanceId": instance.id,
        "device": "/dev/xvda",
        "status": "attached",
        "attachTime": timestamp(instance.launched_at),
        "deleteOnTermination": _deleted_on_termination(instance),
    }
    return {
        "volumeId": instance.volume_id,
        "size": _requested(instance).get("VolumeSize", "8"),
        "snapshotId": "",
        "availabilityZone": instance.zone,
        "status": _status(instance),
        "createTime": timestamp(instance.launched_at),
        "attachmentSet": [attachment] if _attached(instance) else [],
        "tagSet": tag_set(instance.volume_tags),
        "volumeType": "gp3",
        "encrypted": boolean(_requested(instance).get("Encrypted")),
        "multiAttachEnabled": False,
    }


def _unknown(volume_id: str) -> ApiError:
    return ApiError("InvalidVolume.NotFound", f"The volume '{volume_id}' does not exist.")
