"""DescribeImages, over the twin's catalogue."""

from __future__ import annotations

from typing import Any

from atemporal.twin.catalogue import IMAGES
from atemporal.twin.ec2.account import Account
from atemporal.twin.ec2.action import Parameters, Response
from atemporal.twin.ec2.filters import Values, select
from atemporal.twin.ec2.wire import ApiError, listed

_BY_ID = {image["imageId"]: image for image in IMAGES}


def architecture(image_id: str) -> str | None:
    """An image's architecture; None for one that is not listed here, which may be launched too."""
    image = _BY_ID.get(image_id)
    return None if image is None else str(image["architecture"])


def root_snapshot(image_id: str) -> tuple[str, str, int] | None:
    """An image's root device, its snapshot and the size of that in GiB; None for one not listed."""
    image = _BY_ID.get(image_id)
    if image is None:
        return None
    [mapping] = image["blockDeviceMapping"]
    return mapping["deviceName"], mapping["ebs"]["snapshotId"], mapping["ebs"]["volumeSize"]


_FILTERS: dict[str, Values[dict[str, Any]]] = {
    "name": lambda image: [image["name"]],
    "state": lambda image: [image["imageState"]],
    "architecture": lambda image: [image["architecture"]],
    "owner-id": lambda image: [image["imageOwnerId"]],
    "image-id": lambda image: [image["imageId"]],
    "image-type": lambda image: [image["imageType"]],
    "root-device-type": lambda image: [image["rootDeviceType"]],
    "virtualization-type": lambda image: [image["virtualizationType"]],
    "is-public": lambda image: [str(image["isPublic"]).lower()],
}


def describe(_account: Account, parameters: Parameters) -> Response:
    """DescribeImages."""
    ids = listed(parameters.get("ImageId"), "ImageId")
    owners = listed(parameters.get("Owner"), "Owner")
    for image_id in ids:
        if image_id not in _BY_ID:
            raise ApiError("InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist")
    found = [_BY_ID[one] for one in ids] if ids else list(IMAGES)
    if owners:
        found = [image for image in found if image["imageOwnerId"] in owners]
    return {"imagesSet": select(found, parameters, _FILTERS, lambda _: {})}
