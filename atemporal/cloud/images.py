"""Machine images: the newest one of a family, and what EC2 shows of one.

Promise: an image is looked up among those of the family's publisher, for the processors that are asked
for. What EC2 showed of an image is kept: it does not change.

Failure: an image that EC2 does not show is None, and is looked at again a little later; `Retry` when EC2
can not be asked.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from atemporal.architecture import architecture as architecture_of
from atemporal.cloud.caller import Caller
from atemporal.cloud.faults import Rejected, WrongImage
from atemporal.limits import Limit
from atemporal.model import Launch
from atemporal.settings import Settings
from atemporal.userdata import os_family

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import ImageTypeDef

IMAGE_FRESH_S, NO_IMAGE_S = 3600.0, 60.0
# How long an image that EC2 does not show is not looked at again: for a moment, and longer where it was
# launched all the same, as some endpoints do.
UNKNOWN_IMAGE_S, LAUNCHED_UNKNOWN_S = 10.0, 600.0


class Images:
    """The images of one region. May be shared by threads: an entry is only replaced by one as good."""

    def __init__(self, settings: Settings, client: EC2Client, caller: Caller) -> None:
        self._settings = settings
        self._ec2 = client
        self._caller = caller
        self._found: dict[str, tuple[str, float]] = {}
        self._missing: dict[str, float] = {}
        self._known: dict[str, ImageTypeDef] = {}
        self._unknown: dict[str, float] = {}

    def resolve(self, architecture: str | None = None) -> str:
        """As `Cloud.resolve_image`."""
        if self._settings.image_id:
            return self._settings.image_id
        wanted = architecture or architecture_of(self._settings.instance_type)
        now = time.monotonic()
        found = self._found.get(wanted)
        if found is not None and now - found[1] < IMAGE_FRESH_S:
            return found[0]
        missing_since = self._missing.get(wanted)
        if missing_since is None or now - missing_since >= NO_IMAGE_S:
            newest = self._newest(wanted)
            if newest is not None:
                self._found[wanted] = (newest, now)
                return newest
            self._missing[wanted] = now
        family = os_family(self._settings.os_family)
        raise Rejected(
            f"looking up the newest {family.name} image in {self._settings.region}",
            "NoImage",
            f"account {family.image_owner} offers none named {family.image_name} for {wanted}; set "
            f"ATEMPORAL_IMAGE_ID to the id of a {family.name} image that this region has",
        )

    def get(self, image_id: str) -> ImageTypeDef | None:
        """The image as EC2 shows it; None where EC2 says that it has none for us."""
        if image_id in self._known:
            return self._known[image_id]
        if self._unknown.get(image_id, 0.0) > time.monotonic():
            return None
        try:
            found = self._caller.read(
                Limit.DESCRIBE,
                f"looking at image {image_id}",
                lambda: self._ec2.describe_images(ImageIds=[image_id]).get("Images", []),
            )
        except Rejected:
            found = []
        if not found:
            self._unknown[image_id] = time.monotonic() + UNKNOWN_IMAGE_S
            return None
        self._known[image_id] = found[0]
        return found[0]

    def launched(self, image_id: str) -> None:
        """EC2 has launched it, whether it shows it or not."""
        if image_id not in self._known:
            self._unknown[image_id] = time.monotonic() + LAUNCHED_UNKNOWN_S

    def check_family(self, launch: Launch, doing: str) -> None:
        """Refuse an image that is not known to be of the family that the user-data is made for.

        Raises:
            WrongImage: it is not, with its name and its owner.
        """
        image = self.get(launch.image_id)
        if image is None or launch.image_id in self._settings.trusted_images:
            return  # what EC2 does not show to us it does not launch for us either
        owner, name = image.get("OwnerId", ""), image.get("Name", "")
        if not os_family(launch.os_family).has_image(owner=owner, name=name):
            raise WrongImage(
                doing,
                "WrongImage",
                f"image {launch.image_id} ({name or 'without a name'}, of account {owner}) is not"
                f" known to be {launch.os_family}",
            )

    def _newest(self, architecture: str) -> str | None:
        family = os_family(self._settings.os_family)
        doing = f"looking up the newest {family.name} image in {self._settings.region}"
        wanted: Any = {
            "name": [family.image_name],
            "architecture": [architecture],
            "state": ["available"],
        }
        filters: Any = [{"Name": name, "Values": values} for name, values in wanted.items()]
        images = self._caller.read(
            Limit.DESCRIBE,
            doing,
            lambda: self._ec2.describe_images(Owners=[family.image_owner], Filters=filters).get(
                "Images", []
            ),
        )
        if not images:
            return None
        return max(images, key=lambda image: image["CreationDate"])["ImageId"]
