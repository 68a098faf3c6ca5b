"""The machine images that the twin has: DescribeImages.

Promise: it lists Flatcar's images as their publisher does, so that a look-up by owner, name and
date finds the newest stable one among others. No image is ever executed.
"""

from __future__ import annotations

import hashlib
from typing import Any

from atemporal.twin.ec2.account import Account
from atemporal.twin.ec2.action import Parameters, Response
from atemporal.twin.ec2.filters import Values, select
from atemporal.twin.ec2.wire import ApiError, listed

FLATCAR_OWNER = "075585003325"

_RELEASES = (
    ("stable", "4230.2.4", "2026-01-20T10:12:03.000Z"),
    ("stable", "4459.2.1", "2026-03-17T09:41:55.000Z"),
    ("stable", "4459.2.3", "2026-06-02T11:05:31.000Z"),
    ("beta", "4593.1.0", "2026-07-14T08:59:12.000Z"),
)
_ARCHITECTURES = (("x86_64", ""), ("arm64", "-arm64"))


def _image(
    channel: str, version: str, created: str, architecture: str, mark: str
) -> dict[str, Any]:
    name = f"Flatcar-{channel}-{version}{mark}-hvm"
    image_id = f"ami-{hashlib.sha256(name.encode()).hexdigest()[:17]}"
    return {
        "imageId": image_id,
        "imageLocation": f"{FLATCAR_OWNER}/{name}",
        "imageState": "available",
        "imageOwnerId": FLATCAR_OWNER,
        "creationDate": created,
        "isPublic": True,
        "architecture": architecture,
        "imageType": "machine",
        "name": name,
        "description": f"Flatcar Container Linux {channel} {version} (HVM)",
        "rootDeviceType": "ebs",
        "rootDeviceName": "/dev/xvda",
        "virtualizationType": "hvm",
        "hypervisor": "xen",
        "enaSupport": True,
    }


IMAGES = tuple(
    _image(*release, architecture, mark)
    for release in _RELEASES
    for architecture, mark in _ARCHITECTURES
)

_BY_ID = {image["imageId"]: image for image in IMAGES}


def architecture(image_id: str) -> str | None:
    """An image's architecture; None for one that is not listed here, which may be launched too."""
    image = _BY_ID.get(image_id)
    return None if image is None else str(image["architecture"])


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
