"""The machine images that the twin has, as their publishers list them.

Promise: a look-up by owner, name and date finds Flatcar's newest stable one among others, and two images
of other families are there to be mistaken for it. No image is ever executed: what matters of it is which
program takes up a machine's user-data. An image id that is not here boots as Flatcar does.
"""

from __future__ import annotations

import hashlib
from typing import Any

FLATCAR_OWNER = "075585003325"

_RELEASES = (
    ("stable", "4230.2.4", "2026-01-20T10:12:03.000Z"),
    ("stable", "4459.2.1", "2026-03-17T09:41:55.000Z"),
    ("stable", "4459.2.3", "2026-06-02T11:05:31.000Z"),
    ("beta", "4593.1.0", "2026-07-14T08:59:12.000Z"),
)
# Of the publishers' own: what a root volume has at least.
_ROOT_GB = 8
_ARCHITECTURES = (("x86_64", ""), ("arm64", "-arm64"))
# Canonical's and Amazon's accounts and names, as their own pages on finding images give them.
_WITH_CLOUD_INIT = (
    (
        "099720109477",
        "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20260601",
        "Canonical, Ubuntu, 24.04 LTS, amd64 noble image",
        "2026-06-01T06:20:11.000Z",
    ),
    (
        "137112412989",
        "al2023-ami-2023.8.20260610.0-kernel-6.1-x86_64",
        "Amazon Linux 2023 AMI 2023.8.20260610.0 x86_64 HVM kernel-6.1",
        "2026-06-10T19:03:47.000Z",
    ),
)


def _image(
    owner: str, name: str, description: str, created: str, architecture: str = "x86_64"
) -> dict[str, Any]:
    return {
        "imageId": f"ami-{hashlib.sha256(name.encode()).hexdigest()[:17]}",
        "imageLocation": f"{owner}/{name}",
        "imageState": "available",
        "imageOwnerId": owner,
        "creationDate": created,
        "isPublic": True,
        "architecture": architecture,
        "imageType": "machine",
        "name": name,
        "description": description,
        "rootDeviceType": "ebs",
        "rootDeviceName": "/dev/xvda",
        "blockDeviceMapping": [
            {
                "deviceName": "/dev/xvda",
                "ebs": {
                    "snapshotId": f"snap-{hashlib.sha256(name.encode()).hexdigest()[17:34]}",
                    "volumeSize": _ROOT_GB,
                    "volumeType": "gp3",
                    "deleteOnTermination": True,
                },
            }
        ],
        "virtualizationType": "hvm",
        "hypervisor": "xen",
        "enaSupport": True,
    }


_OTHERS = tuple(_image(*one) for one in _WITH_CLOUD_INIT)
IMAGES = (
    *(
        _image(
            FLATCAR_OWNER,
            f"Flatcar-{channel}-{version}{mark}-hvm",
            f"Flatcar Container Linux {channel} {version} (HVM)",
            created,
            architecture,
        )
        for channel, version, created in _RELEASES
        for architecture, mark in _ARCHITECTURES
    ),
    *_OTHERS,
)


def runs_cloud_init(image_id: str) -> bool:
    """Whether a machine of this image gives its user-data to Canonical's cloud-init."""
    return any(image["imageId"] == image_id for image in _OTHERS)
