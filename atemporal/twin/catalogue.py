"""The machine images that the twin has, as their publishers list them.

Promise: a look-up by owner, name and date finds the newest one of each OS family among others, which
are there to be mistaken for it. No image is ever executed: what matters of it is which program takes up
a machine's user-data. An image id that is not here boots as Flatcar does.
"""

from __future__ import annotations

import hashlib
from typing import Any

FLATCAR_OWNER = "075585003325"
FEDORA_OWNER = "125523088429"
CANONICAL_OWNER = "099720109477"
AMAZON_OWNER = "137112412989"
DEBIAN_OWNER = "136693071363"

# Of the publishers' own: what a root volume has at least.
_ROOT_GB = 8
# Each publisher's account and the form of its names, as its own pages on finding images give them: the
# owner, the name, the words for the two architectures, the date.
_LISTED = (
    *(
        (FLATCAR_OWNER, f"Flatcar-{channel}-{version}{{}}-hvm", ("", "-arm64"), created)
        for channel, version, created in (
            ("stable", "4230.2.4", "2026-01-20T10:12:03.000Z"),
            ("stable", "4459.2.1", "2026-03-17T09:41:55.000Z"),
            ("stable", "4459.2.3", "2026-06-02T11:05:31.000Z"),
            ("beta", "4593.1.0", "2026-07-14T08:59:12.000Z"),
        )
    ),
    *(
        (FEDORA_OWNER, f"fedora-coreos-{version}-{{}}", ("x86_64", "aarch64"), created)
        for version, created in (
            ("44.20260705.3.0", "2026-07-20T15:20:41.000Z"),
            ("44.20260802.3.1", "2026-08-18T16:02:09.000Z"),
            ("44.20260816.2.0", "2026-08-18T16:41:37.000Z"),
        )
    ),
    (
        FEDORA_OWNER,
        "Fedora-Cloud-Base-AmazonEC2.{}-44-1.7",
        ("x86_64", "aarch64"),
        "2026-09-01T12:00:00.000Z",
    ),
    (
        CANONICAL_OWNER,
        "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-{}-server-20260601",
        ("amd64", "arm64"),
        "2026-06-01T06:20:11.000Z",
    ),
    (
        AMAZON_OWNER,
        "al2023-ami-2023.8.20260610.0-kernel-6.1-{}",
        ("x86_64", "arm64"),
        "2026-06-10T19:03:47.000Z",
    ),
    (
        AMAZON_OWNER,
        "al2023-ami-minimal-2023.8.20260610.0-kernel-6.1-{}",
        ("x86_64", "arm64"),
        "2026-06-10T19:05:12.000Z",
    ),
    (DEBIAN_OWNER, "debian-13-{}-20260601-2117", ("amd64", "arm64"), "2026-06-01T09:11:30.000Z"),
    (
        DEBIAN_OWNER,
        "debian-13-backports-{}-20260608-2123",
        ("amd64", "arm64"),
        "2026-06-08T09:10:02.000Z",
    ),
)
_PROGRAMS = {
    # Ignition leaves to coreos-cloudinit what is none of its own.
    FLATCAR_OWNER: ("ignition", "coreos-cloudinit"),
    FEDORA_OWNER: ("ignition",),
    CANONICAL_OWNER: ("cloud-init",),
    AMAZON_OWNER: ("cloud-init",),
    DEBIAN_OWNER: ("cloud-init",),
}


def _image(owner: str, name: str, created: str, architecture: str) -> dict[str, Any]:
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
        "description": name,
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


IMAGES = tuple(
    _image(owner, name.format(word), created, architecture)
    for owner, name, words, created in _LISTED
    for architecture, word in zip(("x86_64", "arm64"), words, strict=True)
)
_OWNERS = {image["imageId"]: image["imageOwnerId"] for image in IMAGES}


def programs(image_id: str) -> tuple[str, ...]:
    """What takes up the user-data of a machine of this image, the first one first."""
    return _PROGRAMS[_OWNERS.get(image_id, FLATCAR_OWNER)]
