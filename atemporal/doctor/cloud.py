"""Checks of EC2: it answers, and these credentials may make each call that a daemon makes.

Promise: nothing is launched, tagged, ended or deleted: each call is a dry run. A call that names an
instance names one of this deployment's, because a policy may allow what has its tag and nothing else; as
long as there is none, a refusal proves nothing, and the check says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from atemporal.cloud import CloudError, Forbidden, Throttled, Unauthorized, Unreachable
from atemporal.cloud.inspection import Own
from atemporal.cloud.instance import JOB_TAG
from atemporal.doctor.check import Check, Result, ok, unchecked, wrong
from atemporal.doctor.instruments import Instruments, shown
from atemporal.doctor.settings import VALUES

REACHABLE = "ec2.reachable"
LAUNCHER, REAPER = "launcher", "reaper"
POLICIES = "deploy/aws"
_WORDS = 300
_NOBODY = Own("i-00000000000000000", "vol-00000000000000000")
_TAG = [{"Key": JOB_TAG, "Value": str(UUID(int=0))}]


@dataclass(frozen=True)
class _Right:
    """A call of the daemons; `naming` makes its parameters of an instance."""

    action: str
    daemons: tuple[str, ...]
    naming: Callable[[Own], Mapping[str, Any]] | None = None


_RIGHTS = (
    _Right("DescribeInstances", (LAUNCHER, REAPER)),
    _Right("DescribeVolumes", (LAUNCHER, REAPER)),
    _Right("DescribeImages", (LAUNCHER,)),
    _Right("DescribeInstanceTypes", (LAUNCHER,)),
    _Right(
        "CreateTags", (LAUNCHER,), lambda own: {"Resources": [own.instance], "Tags": list(_TAG)}
    ),
    _Right("TerminateInstances", (REAPER,), lambda own: {"InstanceIds": [own.instance]}),
    _Right("GetConsoleOutput", (REAPER,), lambda own: {"InstanceId": own.instance}),
    _Right("DeleteVolume", (REAPER,), lambda own: {"VolumeId": own.volume or _NOBODY.volume}),
)


def reachable(instruments: Instruments) -> Result:
    """It answers, and knows who we are."""
    settings = instruments.settings
    where = shown(settings.ec2_endpoint_url or settings.region)
    refusal = instruments.ec2.dry_run("DescribeInstances")
    if isinstance(refusal, Unreachable | Throttled):
        raise refusal
    if isinstance(refusal, Unauthorized) and not isinstance(refusal, Forbidden):
        return wrong(
            f"EC2 ({where}) does not take our credentials: {words(refusal)}",
            "give this process AWS credentials: an instance role, AWS_PROFILE, or AWS_ACCESS_KEY_ID "
            "and AWS_SECRET_ACCESS_KEY; a clock that is minutes off is refused too",
        )
    return ok(f"EC2 answers ({where})")


def _asking(right: _Right) -> Callable[[Instruments], Result]:
    def ask(instruments: Instruments) -> Result:
        own, request = _NOBODY, {}
        if right.naming is not None:
            try:
                own = instruments.ec2.own or _NOBODY
            except Forbidden as error:
                return unchecked(
                    f"needs an instance to ask about, and EC2 denies the listing: {words(error)}",
                    "see ec2.rights.DescribeInstances and ec2.rights.DescribeVolumes",
                )
            request = dict(right.naming(own))
        refusal = instruments.ec2.dry_run(right.action, **request)
        if right.naming is not None and own is _NOBODY and isinstance(refusal, Forbidden):
            return unchecked(
                f"EC2 denies {right.action} on an instance that there is not, as a policy by tags "
                "does; this deployment has none now to ask about",
                f"run doctor again while a job runs; {_allow(right)}",
            )
        return result_of(refusal, right.action, _allow(right))

    return ask


def _allow(right: _Right) -> str:
    roles = " and ".join(f"the {daemon}'s" for daemon in right.daemons)
    return f"allow ec2:{right.action} to {roles} role ({POLICIES})"


def result_of(refusal: CloudError | None, action: str, allow: str) -> Result:
    """What a dry run says of the right to make a call; what else EC2 has against it is no refusal."""
    if isinstance(refusal, Unauthorized):
        return wrong(f"these credentials may not make {action}: {words(refusal)}", allow)
    if isinstance(refusal, Unreachable | Throttled):
        raise refusal
    return ok(f"{action} is allowed")


def words(error: CloudError) -> str:
    """EC2's own, without the long cipher that only `aws sts decode-authorization-message` reads."""
    text = error.detail.partition(" Encoded authorization failure message")[0]
    return text if len(text) <= _WORDS else f"{text[: _WORDS - 1]}…"


CHECKS = (
    Check(REACHABLE, reachable, (VALUES,)),
    *(
        Check(f"ec2.rights.{one.action}", _asking(one), (REACHABLE,), one.daemons)
        for one in _RIGHTS
    ),
)
