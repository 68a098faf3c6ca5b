"""Tags of instances and volumes: read from a request, and added later by CreateTags."""

from __future__ import annotations

from typing import Any

from atemporal.twin.ec2.account import Account
from atemporal.twin.ec2.action import Parameters, Response
from atemporal.twin.ec2.wire import ApiError, invalid, listed

LIMIT = 50

_TAGGED = ("instance", "volume", "network-interface", "spot-instances-request")


def create(account: Account, parameters: Parameters) -> Response:
    """CreateTags: all resources or none."""
    tags = read(parameters.get("Tag"))
    ids = listed(parameters.get("ResourceId"), "ResourceId")
    if not ids or not tags:
        raise ApiError("MissingParameter", "The request must contain resources and tags")
    state = account.state
    with state.lock:
        by_volume = {one.volume_id: one for one in state.instances()}
        unknown = [one for one in ids if one.startswith("vol-") and one not in by_volume]
        if unknown:
            raise ApiError("InvalidVolume.NotFound", f"The volume '{unknown[0]}' does not exist.")
        targets = [(by_volume[one], "volume_tags") for one in ids if one in by_volume]
        rest = [one for one in ids if one not in by_volume]
        targets += [(instance, "tags") for instance in account.named(rest)]
        changes = [(one, name, {**getattr(one, name), **tags}) for one, name in targets]
        for _, _, all_tags in changes:
            _check_count(all_tags)
        for one, name, all_tags in changes:
            changes_of: dict[str, Any] = {name: all_tags}
            state.change(one.id, **changes_of)
    return {"return": True}


def read(entries: object) -> dict[str, str]:
    """Read a list of tags.

    Raises:
        ApiError: a key is missing, reserved or there twice, or there are too many.
    """
    tags: dict[str, str] = {}
    for entry in listed(entries, "Tag"):
        key, value = entry.get("Key", ""), entry.get("Value", "")
        if not key or len(key) > 128 or len(value) > 256:
            raise invalid("Tag", f"{key}={value}")
        if key.startswith("aws:"):
            raise ApiError(
                "InvalidParameterValue", f"Tag keys starting with 'aws:' are reserved: {key}"
            )
        if key in tags:
            raise ApiError("InvalidParameterValue", f"Duplicate tag key '{key}' specified.")
        tags[key] = value
    _check_count(tags)
    return tags


def read_specifications(parameters: Parameters) -> dict[str, dict[str, str]]:
    """Read the tags of a launch, for each type of resource.

    Raises:
        ApiError: a type is unknown or its tags are bad.
    """
    found: dict[str, dict[str, str]] = {}
    for entry in listed(parameters.get("TagSpecification"), "TagSpecification"):
        kind = entry.get("ResourceType", "")
        if kind not in _TAGGED or kind in found:
            raise invalid("TagSpecification.ResourceType", kind)
        found[kind] = read(entry.get("Tag"))
    return found


def _check_count(tags: dict[str, str]) -> None:
    if len(tags) > LIMIT:
        raise ApiError("TagLimitExceeded", f"More than {LIMIT} tags on a resource")
