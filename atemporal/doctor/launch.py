"""Checks of what a launch is made of: the image, the instance type, and the call as a whole."""

from __future__ import annotations

from uuid import UUID, uuid4

from atemporal import tokens
from atemporal.cloud import CloudError, Forbidden, Throttled, Unauthorized, Unreachable
from atemporal.cloud.inspection import Image
from atemporal.doctor.check import Check, Result, ok, unchecked, warning, worst, wrong
from atemporal.doctor.cloud import LAUNCHER, POLICIES, REACHABLE, result_of, words
from atemporal.doctor.instruments import Instruments
from atemporal.errors import Refused, Retry
from atemporal.intent import first_intent
from atemporal.model import AttemptRef, parse_spec
from atemporal.settings import Settings
from atemporal.userdata import os_family, purpose_of, render

IMAGE = "ec2.image"
# EC2 allows five calls of RunInstances at once, to all: a launcher has to find one.
_MOST_CALLS = 3
_IMAGE = (
    "set ATEMPORAL_IMAGE_ID to an image that this region has, or unset it: then the newest of the OS "
    "family is taken"
)


def image(instruments: Instruments) -> Result:
    """The image is there, can be launched, and is of the OS family that the user-data is made for."""
    settings = instruments.settings
    try:
        image_id = instruments.ec2.cloud.resolve_image()
        found = instruments.ec2.image(image_id)
    except Forbidden as error:
        return may_not_look(error, "DescribeImages")
    except CloudError as error:
        if isinstance(error, Retry):
            raise
        return wrong(words(error), _IMAGE)
    if found is None:
        return wrong(
            f"there is no image {image_id} in {settings.region}: publishers withdraw old ones",
            _IMAGE,
        )
    return described(found, settings)


def described(found: Image, settings: Settings) -> Result:
    """What is to be said of an image that is there."""
    family = os_family(settings.os_family)
    named = f"image {found.id} ({found.name or 'without a name'}, of account {found.owner})"
    if found.state != "available":
        return wrong(f"{named} is {found.state or 'in no state'}, not available", _IMAGE)
    trusted = found.id in settings.trusted_images
    if not trusted and not family.has_image(owner=found.owner, name=found.name):
        return wrong(
            f"{named} is not known to be {family.name}, which the user-data is made for",
            f"{_IMAGE}; if it is your own copy of one, name it in ATEMPORAL_TRUSTED_IMAGES",
        )
    root = f", root volume from {found.root_gb} GB on" if found.root_gb else ""
    return ok(f"{named}: {found.architecture}{root}{', trusted by the settings' * trusted}")


def instance_type(instruments: Instruments) -> Result:
    """The instance type is there, and has processors that the image is for."""
    kind = instruments.settings.instance_type
    try:
        architectures = instruments.ec2.architectures(kind)
    except Forbidden as error:
        return may_not_look(error, "DescribeInstanceTypes")
    if architectures is None:
        return wrong(
            f"there is no instance type {kind} in {instruments.settings.region}",
            "set ATEMPORAL_INSTANCE_TYPE to one that `aws ec2 describe-instance-types` lists there",
        )
    found = instruments.ec2.image(instruments.ec2.cloud.resolve_image())
    if found is not None and architectures and found.architecture not in architectures:
        return wrong(
            f"the image {found.id} is for {found.architecture}, {kind} is {', '.join(architectures)}: "
            "EC2 refuses every launch",
            "set ATEMPORAL_INSTANCE_TYPE or ATEMPORAL_IMAGE_ID so that both are of one architecture",
        )
    return ok(f"{kind}: {', '.join(architectures) or 'its architecture is not shown'}")


def run_instances(instruments: Instruments) -> Result:
    """EC2 would launch a small job's machine, as the launcher asks for it, in each subnet."""
    settings = instruments.settings
    places: tuple[str | None, ...] = settings.subnets[:_MOST_CALLS] or (None,)
    parts = [_launch(instruments, place) for place in places]
    more = len(settings.subnets) - _MOST_CALLS
    left_out = f"; {more} more subnets not tried" if more > 0 else ""
    return worst(parts, well=f"EC2 would launch a {settings.instance_type}{left_out}")


def _launch(instruments: Instruments, subnet_id: str | None) -> Result:
    settings = instruments.settings
    ref, spec = AttemptRef(uuid4(), 1), parse_spec({"image": "busybox"})
    launch = first_intent(
        settings,
        spec,
        image_id=instruments.ec2.cloud.resolve_image(),
        key_id=settings.signing_key_id,
        # A policy may be of the keys of tags: each launch has this one.
        installation=UUID(int=0),
        instance_type=settings.instance_type,
        subnet_id=subnet_id,
        capacity_type="on-demand",
    )
    token = tokens.mint(
        settings.keys, launch.key_id, settings.deployment, ref.id, purpose_of(launch)
    )
    refusal = instruments.ec2.run_instances(ref, launch, render(ref, spec, launch, token))
    place = f" in {subnet_id}" if subnet_id else ""
    what = f"a {settings.instance_type}{place}"
    if refusal is None or isinstance(refusal, Unauthorized | Unreachable | Throttled):
        return result_of(refusal, f"RunInstances{place}", _allow(settings))
    if isinstance(refusal, Refused):
        return wrong(f"EC2 refuses to launch {what}: {words(refusal)}", _setting_of(refusal.code))
    return warning(
        f"EC2 would not launch {what} now: {words(refusal)}",
        "launches wait for it: see the runbook, `Jobs that do not start`",
    )


def _allow(settings: Settings) -> str:
    """What lets the launcher launch."""
    also = ", and iam:PassRole on the profile's role" if settings.instance_profile else ""
    tags = "; a tag policy may refuse ATEMPORAL_TAGS" if settings.tags else ""
    return (
        "allow ec2:RunInstances, and ec2:CreateTags at the launch, to the launcher's role "
        f"({POLICIES}/launcher-policy.json){also}{tags}"
    )


def _setting_of(code: str) -> str:
    """Which setting to correct, by EC2's code."""
    known = {
        "InvalidAMIID": "ATEMPORAL_IMAGE_ID",
        "InvalidSubnet": "ATEMPORAL_SUBNETS",
        "InvalidGroup": "ATEMPORAL_SECURITY_GROUPS",
        "InvalidSecurityGroup": "ATEMPORAL_SECURITY_GROUPS",
        "InvalidKeyPair": "ATEMPORAL_KEY_NAME",
        "VPCIdNotSpecified": "ATEMPORAL_SUBNETS (this account has no default VPC)",
    }
    named = next((name for prefix, name in known.items() if code.startswith(prefix)), None)
    if named:
        return f"correct {named}, and restart the launchers"
    return (
        "correct the setting that EC2 names (ATEMPORAL_INSTANCE_TYPE, ATEMPORAL_IMAGE_ID, "
        "ATEMPORAL_INSTANCE_PROFILE, ATEMPORAL_SUBNETS), and restart the launchers"
    )


def may_not_look(error: Forbidden, action: str, policy: str = LAUNCHER) -> Result:
    """What is to be said of something that these credentials may not look at."""
    return unchecked(
        f"we may not look: {words(error)}",
        f"allow ec2:{action} to this role ({POLICIES}/{policy}-policy.json)",
    )


CHECKS = (
    Check(IMAGE, image, (REACHABLE,), (LAUNCHER,)),
    Check("ec2.instance-type", instance_type, (IMAGE,), (LAUNCHER,)),
    Check("ec2.rights.RunInstances", run_instances, (IMAGE,), (LAUNCHER,)),
)
