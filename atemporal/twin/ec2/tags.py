"""Tags of instances and volumes: read from a request, and added later by CreateTags.

Promise: what EC2 refuses of tags is refused here. Sources: the EC2 user guide's tag restrictions (50
tags, lengths of 128 and 256, `aws:` reserved in any case, any character allowed; of an instance whose
tags are shown on the machine a key has no space and no `/`), the API reference's error codes
(TagLimitExceeded, InvalidParameterValue) and its CreateTags (up to 1000 resources). EC2 names no code
for more resources than that, and none for a key that the machine can not show; both are
InvalidParameterValue here.
"""

from __future__ import annotations

import re
from typing import Any

from atemporal.twin.ec2.account import Account
from atemporal.twin.ec2.action import Parameters, Response
from atemporal.twin.ec2.wire import ApiError, invalid, listed

# Its own, not those that our tags are checked by: a mistake there has to show.
LIMIT, KEY_LIMIT, VALUE_LIMIT = 50, 128, 256
RESOURCES = 1000
_ON_THE_MACHINE = re.compile(r"(?!\.{1,2}\Z|_index\Z)[0-9a-zA-Z\-_+=,.@:]+")

_TAGGED = ("instance", "volume", "network-interface", "spot-instances-request")


def create(account: Account, parameters: Parameters) -> Response:
    """CreateTags: all resources or none."""
    tags = read(parameters.get("Tag"))
    ids = listed(parameters.get("ResourceId"), "ResourceId")
    if not ids or not tags:
        raise ApiError("MissingParameter", "The request must contain resources and tags")
    if len(ids) > RESOURCES:
        raise invalid("ResourceId", f"{len(ids)} resources (more than {RESOURCES})")
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
        if not key or len(key) > KEY_LIMIT or len(value) > VALUE_LIMIT:
            raise invalid("Tag", f"{key}={value}")
        if key.lower().startswith("aws:"):
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
    if parameters.get("MetadataOptions", {}).get("InstanceMetadataTags") == "enabled":
        for key in found.get("instance", {}):
            if not _ON_THE_MACHINE.fullmatch(key):
                raise invalid("Tag", f"{key} (the instance's metadata can not show such a key)")
    return found


def _check_count(tags: dict[str, str]) -> None:
    if len(tags) > LIMIT:
        raise ApiError("TagLimitExceeded", f"More than {LIMIT} tags on a resource")
