"""What a RunInstances call is made of.

Promise: it follows from the arguments alone, so that a call that is repeated is the same to the byte.
Every instance ends when it powers itself off, and takes its volumes with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from atemporal.cloud.instance import INSTALLATION_TAG
from atemporal.model import Launch

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import ImageTypeDef, TagTypeDef

DEFAULT_ROOT_DEVICE = "/dev/xvda"
# An account may switch them on for all its instances, and with them EC2 takes no `/` in a key.
_TAGS_NOT_ON_THE_MACHINE = {"InstanceMetadataTags": "disabled"}


def build(
    token: str,
    tags: Mapping[str, str],
    size: int,
    launch: Launch,
    user_data: bytes,
    *,
    image: ImageTypeDef | None,
) -> dict[str, Any]:
    """The parameters of a call for `size` instances at most; without an `image` EC2 knows none."""
    # All from the intent, and in one order, so that a repeated call is the same to the byte.
    others = dict(sorted((launch.tags or {}).items()))
    named = {**others, **tags}
    if launch.installation:
        named[INSTALLATION_TAG] = str(launch.installation)
    request: dict[str, Any] = {
        "ClientToken": token,
        "MinCount": 1,
        "MaxCount": size,
        "ImageId": launch.image_id,
        "InstanceType": launch.instance_type,
        "UserData": user_data,
        "InstanceInitiatedShutdownBehavior": "terminate",
        # One hop: a container behind docker's bridge gets none of the machine's credentials.
        "MetadataOptions": {
            "HttpEndpoint": "enabled",
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,
            **({} if launch.tags is None else _TAGS_NOT_ON_THE_MACHINE),
        },
        "BlockDeviceMappings": _disks(launch, image),
        "TagSpecifications": [
            {"ResourceType": kind, "Tags": tag_list(named)} for kind in ("instance", "volume")
        ],
    }
    if launch.subnet_id:
        request["SubnetId"] = launch.subnet_id
    if launch.security_group_ids:
        request["SecurityGroupIds"] = list(launch.security_group_ids)
    if launch.key_name:
        request["KeyName"] = launch.key_name
    if profile := launch.instance_profile:
        request["IamInstanceProfile"] = {"Arn" if profile.startswith("arn:") else "Name": profile}
    if launch.capacity_type == "spot":
        request["InstanceMarketOptions"] = {
            "MarketType": "spot",
            "SpotOptions": {
                "SpotInstanceType": "one-time",
                "InstanceInterruptionBehavior": "terminate",
            },
        }
    return request


def tag_list(named: Mapping[str, str]) -> list[TagTypeDef]:
    """Tags as EC2 takes them."""
    return [{"Key": key, "Value": value} for key, value in named.items()]


def disks_gb(disk_gb: int | None, image: ImageTypeDef | None) -> int:
    """How large the disks are together, the root one `disk_gb` if that is given; unknown is 0."""
    if image is None:
        return 0
    return sum(size or 0 for size in _sizes(disk_gb, image).values())


def _sizes(disk_gb: int | None, image: ImageTypeDef) -> dict[str, int | None]:
    root = image.get("RootDeviceName") or DEFAULT_ROOT_DEVICE
    sizes: dict[str, int | None] = {root: None}
    for mapping in image.get("BlockDeviceMappings", ()):
        if "Ebs" in mapping and "DeviceName" in mapping:
            sizes[mapping["DeviceName"]] = mapping["Ebs"].get("VolumeSize")
    sizes[root] = disk_gb or sizes[root]
    return sizes


def _disks(launch: Launch, image: ImageTypeDef | None) -> list[dict[str, Any]]:
    """The image's own disks, each encrypted and gone with the instance.

    The image is asked for their names: under another name than the image's root device, a disk
    would be made besides the root one.
    """
    if image is None:  # RunInstances will say so, or return what it launched before
        return []
    return [
        {
            "DeviceName": device,
            "Ebs": {"DeleteOnTermination": True, "Encrypted": True}
            | ({"VolumeSize": size} if size else {}),
        }
        for device, size in _sizes(launch.disk_gb, image).items()
    ]
