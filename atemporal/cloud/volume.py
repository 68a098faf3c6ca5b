"""A free disk of the deployment: one that should have gone with its instance and did not.

Promise: only volumes that carry the deployment's tag and are attached to nothing are ever read here;
the tags, put on by the launching call itself, name the attempt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from atemporal.cloud.instance import foreign, group_of, ref_of
from atemporal.model import AttemptRef

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import VolumeTypeDef

AVAILABLE = "available"


@dataclass(frozen=True)
class Volume:
    """One volume at the time of one answer; `size_gb` is in GiB."""

    id: str
    state: str
    created_at: datetime
    size_gb: int = 0
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def ref(self) -> AttemptRef | None:
        """The attempt its tags name; `None` when they name none."""
        return ref_of(self.tags)

    @property
    def group_id(self) -> UUID | None:
        """The launch group its tags name; `None` when they name none."""
        return group_of(self.tags)

    def foreign_to(self, installation: UUID) -> bool:
        """Whether another installation launched the instance it was made with."""
        return foreign(self.tags, installation)


def read(item: VolumeTypeDef) -> Volume:
    """Take a `Volume` out of an answer of DescribeVolumes."""
    return Volume(
        id=item["VolumeId"],
        state=item["State"],
        created_at=item["CreateTime"].astimezone(UTC),
        size_gb=item.get("Size", 0),
        tags={tag["Key"]: tag["Value"] for tag in item.get("Tags", ())},
    )
