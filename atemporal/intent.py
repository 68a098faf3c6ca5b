"""The intent of an attempt's first call: what an installation's settings make of a job's machine.

Promise: it follows from its arguments alone. The launcher commits it; whoever asks whether such a launch
is possible asks with the same.
"""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from atemporal.model import JobSpec, Launch
from atemporal.settings import Settings
from atemporal.userdata import delivery_of


def first_intent(
    settings: Settings,
    spec: JobSpec,
    *,
    image_id: str,
    key_id: str,
    installation: UUID | None,
    instance_type: str,
    subnet_id: str | None,
    capacity_type: Literal["on-demand", "spot"],
) -> Launch:
    """The intent for one offering, with no call sent yet."""
    return Launch(
        instance_type=instance_type,
        subnet_id=subnet_id,
        capacity_type=capacity_type,
        calls=0,
        image_id=image_id,
        security_group_ids=settings.security_groups,
        key_name=settings.key_name,
        instance_profile=settings.instance_profile,
        disk_gb=spec.machine.disk_gb,
        callback_base=settings.callback_url,
        delivery=delivery_of(spec),
        key_id=key_id,
        os_family=settings.os_family,
        installation=installation,
        tags=settings.tags,
        label_tags=settings.label_tags,
        # It gives up a little before the reaper would, and can still say why.
        pull_s=settings.pull_deadline_s * 9 // 10,
        hold_s=settings.hold_limit_s,
        # While the reaper lives it is the one that gives up, and says why.
        boot_s=2 * settings.boot_deadline_s,
        deadline_s=(
            settings.boot_deadline_s
            + settings.pull_deadline_s
            + settings.hold_limit_s
            + spec.timeout_s
            + settings.machine_slack_s
        ),
    )
