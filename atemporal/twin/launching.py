"""RunInstances: the parameters, the client token, and the instances that come of them.

Promise: what is a client token's scope, when a repeated call is the same call, and what EC2
refuses is decided here and nowhere else. Sources: the EC2 developer guide's page on idempotency (a
token is zonal when the request names a subnet or a zone, else regional; same token with other
parameters is a mismatch; the token of a terminated instance is an error), the API reference of
RunInstances.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import uuid
from collections.abc import Callable
from typing import Any

from atemporal.twin.books import TERMINATED, Books, Instance, Reservation
from atemporal.twin.wire import ApiError, integer, listed

USER_DATA_LIMIT = 16_384
TOKEN_LIMIT = 64
TAG_LIMIT = 50
COUNT_LIMIT = 1000
BEHAVIOURS = ("stop", "terminate")

_KNOWN = {
    *("ImageId", "InstanceType", "MinCount", "MaxCount", "ClientToken", "UserData", "KeyName"),
    *("SecurityGroup", "SecurityGroupId", "SubnetId", "Placement", "IamInstanceProfile"),
    *("InstanceInitiatedShutdownBehavior", "MetadataOptions", "TagSpecification"),
    *("BlockDeviceMapping", "InstanceMarketOptions", "NetworkInterface", "EbsOptimized"),
    *("Monitoring", "DisableApiTermination", "CreditSpecification", "PrivateDnsNameOptions"),
}
_TAGGED = ("instance", "volume", "network-interface", "spot-instances-request")
_IDS = {
    "ImageId": (r"ami-[0-9a-f]{8,17}", "InvalidAMIID.Malformed"),
    "InstanceType": (r"[a-z0-9-]+\.[a-z0-9-]+", "InvalidParameterValue"),
    "SubnetId": (r"subnet-[0-9a-f]{8,17}", "InvalidSubnetID.NotFound"),
}


def run_instances(
    parameters: dict[str, Any], books: Books, region: str, clock: Callable[[], float]
) -> tuple[Reservation, bool]:
    """Launch, or find the launch that this call repeats; tell whether it is new.

    Raises:
        ApiError: EC2 would refuse the call; nothing has been launched.
    """
    least, most = _counts(parameters)
    user_data = _user_data(parameters)
    behaviour = parameters.get("InstanceInitiatedShutdownBehavior", "stop")
    if behaviour not in BEHAVIOURS:
        raise _bad("InstanceInitiatedShutdownBehavior", behaviour)
    tags = read_tag_specifications(parameters)
    _check(parameters)
    zone, zonal = zone_of(parameters, region)
    token = parameters.get("ClientToken") or str(uuid.uuid4())
    if len(token) > TOKEN_LIMIT or not token.isascii():
        raise _bad("ClientToken", f"{token} (more than {TOKEN_LIMIT} ASCII characters)")
    scope = zone if zonal else ""
    same = {name: value for name, value in parameters.items() if name != "ClientToken"}
    digest = hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()
    with books.lock:
        earlier = books.launched_with(scope, token)
        if earlier is not None:
            return _repeated(earlier, digest, books), False
        reservation_id = new_id("r")
        now = clock()
        asked = {name: value for name, value in same.items() if name != "UserData"}
        instances = tuple(
            Instance(
                id=new_id("i"),
                reservation_id=reservation_id,
                index=index,
                launched_at=now,
                zone=zone,
                private_ip=_private_ip(reservation_id, index),
                parameters=asked,
                shutdown_behaviour=behaviour,
                tags=tags.get("instance", {}),
                volume_id=new_id("vol"),
                volume_tags=tags.get("volume", {}),
            )
            for index in range(max(least, most))
        )
        reservation = Reservation(reservation_id, now, token, scope, digest, user_data, instances)
        books.commit(reservation)
    return reservation, True


def earlier_launch(parameters: dict[str, Any], books: Books, region: str) -> Reservation | None:
    """The launch whose client token the call has, whatever its other parameters are.

    Raises:
        ApiError: the call names a bad zone.
    """
    zone, zonal = zone_of(parameters, region)
    return books.launched_with(zone if zonal else "", parameters.get("ClientToken", ""))


def new_id(kind: str) -> str:
    """Make an id such as i-0123456789abcdef0."""
    return f"{kind}-0{uuid.uuid4().hex[:16]}"


def read_tags(entries: object) -> dict[str, str]:
    """Read a list of tags.

    Raises:
        ApiError: a key is missing, reserved or there twice, or there are too many.
    """
    tags: dict[str, str] = {}
    for entry in listed(entries, "Tag"):
        key, value = entry.get("Key", ""), entry.get("Value", "")
        if not key or len(key) > 128 or len(value) > 256:
            raise _bad("Tag", f"{key}={value}")
        if key.startswith("aws:"):
            raise ApiError(
                "InvalidParameterValue", f"Tag keys starting with 'aws:' are reserved: {key}"
            )
        if key in tags:
            raise ApiError("InvalidParameterValue", f"Duplicate tag key '{key}' specified.")
        tags[key] = value
    check_tag_count(tags)
    return tags


def check_tag_count(tags: dict[str, str]) -> None:
    """Refuse more tags than a resource may have.

    Raises:
        ApiError: it does.
    """
    if len(tags) > TAG_LIMIT:
        raise ApiError("TagLimitExceeded", f"More than {TAG_LIMIT} tags on a resource")


def read_tag_specifications(parameters: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Read the tags for each type of resource.

    Raises:
        ApiError: a type is unknown or its tags are bad.
    """
    found: dict[str, dict[str, str]] = {}
    for entry in listed(parameters.get("TagSpecification"), "TagSpecification"):
        kind = entry.get("ResourceType", "")
        if kind not in _TAGGED or kind in found:
            raise _bad("TagSpecification.ResourceType", kind)
        found[kind] = read_tags(entry.get("Tag"))
    return found


def _repeated(earlier: Reservation, digest: str, books: Books) -> Reservation:
    if earlier.digest != digest:
        raise ApiError(
            "IdempotentParameterMismatch",
            f"Arguments on this idempotent request are inconsistent with arguments used in "
            f"previous request(s): {earlier.token}",
        )
    for launched in earlier.instances:
        now = books.get(launched.id)
        if now is None or now.state == TERMINATED:
            raise ApiError(
                "IdempotentInstanceTerminated",
                f"The client token {earlier.token} belongs to an instance that was terminated",
            )
    return earlier


def _counts(parameters: dict[str, Any]) -> tuple[int, int]:
    for name in ("MinCount", "MaxCount"):
        if name not in parameters:
            raise ApiError("MissingParameter", f"The request must contain the parameter {name}")
    least = integer("MinCount", parameters["MinCount"])
    most = integer("MaxCount", parameters["MaxCount"])
    if not 1 <= least <= most:
        raise _bad("MinCount", f"{least} (it must be from 1 to MaxCount)")
    if most > COUNT_LIMIT:
        raise ApiError(
            "ResourceCountExceeded", f"More than {COUNT_LIMIT} instances in one request"
        )
    return least, most


def _user_data(parameters: dict[str, Any]) -> str:
    encoded: str = parameters.get("UserData", "")
    try:
        raw = base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(
            "InvalidUserData.Malformed", "Invalid BASE64 encoding of user data."
        ) from None
    if len(raw) > USER_DATA_LIMIT:
        raise ApiError(
            "InvalidUserData.Malformed", f"User data is limited to {USER_DATA_LIMIT} bytes"
        )
    return base64.b64encode(raw).decode()


def _check(parameters: dict[str, Any]) -> None:
    for name in parameters:
        if name not in _KNOWN:
            raise ApiError("UnknownParameter", f"The parameter {name} is not recognized")
    for name in ("ImageId", "InstanceType"):
        if name not in parameters:
            raise ApiError("MissingParameter", f"The request must contain the parameter {name}")
    for name, (pattern, code) in _IDS.items():
        value = parameters.get(name)
        if value is not None and not re.fullmatch(pattern, value):
            raise ApiError(code, f"Invalid value '{value}' for {name}")
    hops = parameters.get("MetadataOptions", {}).get("HttpPutResponseHopLimit")
    if hops is not None and not 1 <= integer("HttpPutResponseHopLimit", hops) <= 64:
        raise _bad("HttpPutResponseHopLimit", hops)


def zone_of(parameters: dict[str, Any], region: str) -> tuple[str, bool]:
    """The zone to launch in, and whether the request names one; a subnet's id decides its zone.

    Raises:
        ApiError: there is no such zone in the region.
    """
    interfaces = listed(parameters.get("NetworkInterface"), "NetworkInterface")
    subnet = parameters.get("SubnetId") or next(
        (entry["SubnetId"] for entry in interfaces if "SubnetId" in entry), None
    )
    named = parameters.get("Placement", {}).get("AvailabilityZone")
    if named is not None and not re.fullmatch(rf"{re.escape(region)}[a-f]", named):
        raise ApiError("InvalidParameterValue", f"Invalid availability zone: [{named}]")
    if subnet is None:
        return named or f"{region}a", named is not None
    return f"{region}{'abc'[hashlib.sha256(subnet.encode()).digest()[0] % 3]}", True


def _private_ip(reservation_id: str, index: int) -> str:
    number = hashlib.sha256(f"{reservation_id}.{index}".encode()).digest()
    return f"10.{number[0]}.{number[1]}.{number[2] % 254 + 1}"


def _bad(name: str, value: str) -> ApiError:
    return ApiError("InvalidParameterValue", f"Invalid value '{value}' for {name}")
