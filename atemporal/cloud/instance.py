"""An EC2 instance, as far as an attempt is concerned with it, and the tags that name its attempt.

Promise: frozen, made of what EC2 said in one answer; empty text is `None`, an instant is aware UTC.
The tags are put on at launch by the launching call itself, so that there is no moment at which an
instance exists that does not say whose it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from atemporal.model import AttemptRef

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import InstanceTypeDef

DEPLOYMENT_TAG = "atemporal:deployment"
JOB_TAG = "atemporal:job"
ATTEMPT_TAG = "atemporal:attempt"
INSTALLATION_TAG = "atemporal:installation"
GROUP_TAG = "atemporal:group"

INSTANCE_ID = re.compile(r"i-[0-9a-f]{8,17}")
"""The form of an instance's id. Whatever else goes into a filter may be a wild card."""

# EC2 says it in a sentence only, and only of an end by the API: `User initiated (... GMT)`.
_ENDED_AT = re.compile(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:GMT|UTC)\)")


def client_token(ref: AttemptRef, placement: int) -> str:
    """The token of the call that launches an attempt's instance."""
    return f"{ref.id}.{placement}"


def group_token(group_id: UUID, placement: int) -> str:
    """The token of the call that launches a group's instances."""
    return f"{group_id}.{placement}"


def tags_of(deployment: str, ref: AttemptRef) -> dict[str, str]:
    """The tags of an attempt's instance and of its volumes; they hold no secret."""
    return {
        "Name": f"Atemporal - Job {ref.job_id}",
        DEPLOYMENT_TAG: deployment,
        JOB_TAG: str(ref.job_id),
        ATTEMPT_TAG: str(ref.number),
    }


def tags_of_group(deployment: str, group_id: UUID) -> dict[str, str]:
    """The tags of a launch group's instances and of their volumes, until they get their attempts'."""
    return {
        "Name": f"Atemporal - Group {group_id}",
        DEPLOYMENT_TAG: deployment,
        GROUP_TAG: str(group_id),
    }


def ref_of(tags: Mapping[str, str]) -> AttemptRef | None:
    """The attempt that tags name; `None` when they name none."""
    try:
        return AttemptRef(UUID(tags[JOB_TAG]), int(tags[ATTEMPT_TAG]))
    except (KeyError, ValueError):
        return None


def group_of(tags: Mapping[str, str]) -> UUID | None:
    """The launch group that tags name; `None` when they name none."""
    try:
        return UUID(tags[GROUP_TAG])
    except (KeyError, ValueError):
        return None


def foreign(tags: Mapping[str, str], installation: UUID) -> bool:
    """Whether tags name another installation than this one; those of older releases name none."""
    return tags.get(INSTALLATION_TAG) not in (None, str(installation))


@dataclass(frozen=True)
class Instance:
    """One instance at the time of one answer.

    `state` is EC2's word: pending, running, shutting-down, terminated, stopping, stopped.
    `state_reason` is EC2's code for how it came to that, such as `Server.SpotInstanceTermination`
    or `Client.InstanceInitiatedShutdown`. `ended_at` is when its end by the API began; EC2 does not
    say it of one that powered itself off.
    """

    id: str
    state: str
    state_reason: str | None = None
    public_dns: str | None = None
    public_ip: str | None = None
    private_ip: str | None = None
    launched_at: datetime | None = None
    ended_at: datetime | None = None
    client_token: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def gone(self) -> bool:
        """Whether EC2 says that it has ended; one that is shutting down has not yet."""
        return self.state == "terminated"

    @property
    def ref(self) -> AttemptRef | None:
        """The attempt its tags name; `None` when they name none.

        EC2 takes the tags off some time after an instance's end, so an old one may have none.
        """
        return ref_of(self.tags)

    def of(self, ref: AttemptRef) -> Instance:
        """The instance as it would be with the attempt's tags."""
        return replace(
            self,
            tags={**self.tags, JOB_TAG: str(ref.job_id), ATTEMPT_TAG: str(ref.number)},
        )

    @property
    def group_id(self) -> UUID | None:
        """The launch group its tags name; `None` when they name none."""
        return group_of(self.tags)

    def launched_for(self, ref: AttemptRef) -> bool:
        """Whether a launch of this attempt made it, whatever its tags are: EC2 keeps a call's token."""
        token, _, placement = (self.client_token or "").rpartition(".")
        return token == ref.id and placement.isdecimal()

    def foreign_to(self, installation: UUID) -> bool:
        """Whether another installation launched it."""
        return foreign(self.tags, installation)


def read(item: InstanceTypeDef) -> Instance:
    """Take an `Instance` out of an answer of RunInstances or DescribeInstances."""
    launched_at = item.get("LaunchTime")
    return Instance(
        id=item["InstanceId"],
        state=item["State"]["Name"],
        state_reason=item.get("StateReason", {}).get("Code") or None,
        public_dns=item.get("PublicDnsName") or None,
        public_ip=item.get("PublicIpAddress") or None,
        private_ip=item.get("PrivateIpAddress") or None,
        launched_at=launched_at.astimezone(UTC) if launched_at else None,
        ended_at=_ended_at(item),
        client_token=item.get("ClientToken") or None,
        tags={tag["Key"]: tag["Value"] for tag in item.get("Tags", ())},
    )


def _ended_at(item: InstanceTypeDef) -> datetime | None:
    if item["State"]["Name"] not in ("shutting-down", "terminated"):
        return None
    match = _ENDED_AT.search(item.get("StateTransitionReason", ""))
    return datetime.strptime(f"{match[1]}+0000", "%Y-%m-%d %H:%M:%S%z") if match else None
