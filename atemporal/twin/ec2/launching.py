"""RunInstances: the parameters, the client token, and the instances that come of them.

Promise: the scope of a client token, when a repeated call is the same call, and what EC2 refuses
are decided only here. Sources: the EC2 developer guide's page on idempotency (a token is zonal when
the request names a subnet or a zone, else regional; same token with other parameters is a mismatch;
the token of a terminated instance is an error), the API reference of RunInstances.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import uuid

from atemporal.architecture import architecture
from atemporal.twin.ec2 import description, images, tags
from atemporal.twin.ec2.account import Account
from atemporal.twin.ec2.action import Parameters, Response
from atemporal.twin.ec2.wire import ApiError, integer, invalid, listed
from atemporal.twin.state import TERMINATED, Instance, Reservation, State

USER_DATA_LIMIT = 16_384
TOKEN_LIMIT = 64
COUNT_LIMIT = 1000
GRANTED = "Granted"
"""A parameter of the twin's own: for so many of MaxCount there is capacity."""
BEHAVIOURS = ("stop", "terminate")

_KNOWN = {
    *("ImageId", "InstanceType", "MinCount", "MaxCount", "ClientToken", "UserData", "KeyName"),
    *("SecurityGroup", "SecurityGroupId", "SubnetId", "Placement", "IamInstanceProfile"),
    *("InstanceInitiatedShutdownBehavior", "MetadataOptions", "TagSpecification"),
    *("BlockDeviceMapping", "InstanceMarketOptions", "NetworkInterface", "EbsOptimized"),
    *("Monitoring", "DisableApiTermination", "CreditSpecification", "PrivateDnsNameOptions"),
}
_IDS = {
    "ImageId": (r"ami-[0-9a-f]{8,17}", "InvalidAMIID.Malformed"),
    "InstanceType": (r"[a-z0-9-]+\.[a-z0-9-]+", "InvalidParameterValue"),
    "SubnetId": (r"subnet-[0-9a-f]{8,17}", "InvalidSubnetID.NotFound"),
}


def run(account: Account, parameters: Parameters) -> Response:
    """RunInstances."""
    reservation, is_new = _reserve(account, parameters)
    if is_new:
        for instance in reservation.instances:
            account.host.launch(instance)
        return description.reservation(reservation, reservation.instances)
    return description.reservation(
        reservation, [account.state.get(one.id) or one for one in reservation.instances]
    )


def most(parameters: Parameters) -> int:
    """How many instances a call asks for; one that EC2 refuses anyway asks for one."""
    text = parameters.get("MaxCount", "")
    return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() else 1


def earlier_launch(account: Account, parameters: Parameters) -> Reservation | None:
    """The launch with the call's client token, whatever its other parameters are.

    Raises:
        ApiError: the call names a bad zone.
    """
    zone, zonal = zone_of(parameters, account.region)
    token = parameters.get("ClientToken", "")
    return account.state.launched_with(zone if zonal else "", token)


def _reserve(account: Account, parameters: Parameters) -> tuple[Reservation, bool]:
    """Save a new launch, or find the one that this call repeats; return whether it is new."""
    granted: int | None = parameters.pop(GRANTED, None)
    least, most = _counts(parameters)
    user_data = _user_data(parameters)
    behaviour = parameters.get("InstanceInitiatedShutdownBehavior", "stop")
    if behaviour not in BEHAVIOURS:
        raise invalid("InstanceInitiatedShutdownBehavior", behaviour)
    tagged = tags.read_specifications(parameters)
    _check(parameters)
    zone, zonal = zone_of(parameters, account.region)
    token = parameters.get("ClientToken") or str(uuid.uuid4())
    if len(token) > TOKEN_LIMIT or not token.isascii():
        raise invalid("ClientToken", f"{token} (more than {TOKEN_LIMIT} ASCII characters)")
    scope = zone if zonal else ""
    same = {name: value for name, value in parameters.items() if name != "ClientToken"}
    digest = hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()
    with account.state.lock:
        earlier = account.state.launched_with(scope, token)
        if earlier is not None:
            return _repeated(earlier, digest, account.state), False
        reservation_id = _new_id("r")
        now = account.clock()
        requested = {name: value for name, value in same.items() if name != "UserData"}
        instances = tuple(
            Instance(
                id=_new_id("i"),
                reservation_id=reservation_id,
                index=index,
                launched_at=now,
                zone=zone,
                private_ip=_private_ip(reservation_id, index),
                parameters=requested,
                shutdown_behaviour=behaviour,
                tags=tagged.get("instance", {}),
                volume_id=_new_id("vol"),
                volume_tags=tagged.get("volume", {}),
            )
            for index in range(max(least, min(most, granted or most)))
        )
        reservation = Reservation(reservation_id, now, token, scope, digest, user_data, instances)
        account.state.commit(reservation)
    return reservation, True


def _new_id(kind: str) -> str:
    """Make an id such as i-0123456789abcdef0."""
    return f"{kind}-0{uuid.uuid4().hex[:16]}"


def _repeated(earlier: Reservation, digest: str, state: State) -> Reservation:
    if earlier.digest != digest:
        raise ApiError(
            "IdempotentParameterMismatch",
            f"Arguments on this idempotent request are inconsistent with arguments used in "
            f"previous request(s): {earlier.token}",
        )
    for launched in earlier.instances:
        now = state.get(launched.id)
        if now is None or now.state == TERMINATED:
            raise ApiError(
                "IdempotentInstanceTerminated",
                f"The client token {earlier.token} belongs to an instance that was terminated",
            )
    return earlier


def _counts(parameters: Parameters) -> tuple[int, int]:
    for name in ("MinCount", "MaxCount"):
        if name not in parameters:
            raise ApiError("MissingParameter", f"The request must contain the parameter {name}")
    least = integer("MinCount", parameters["MinCount"])
    most = integer("MaxCount", parameters["MaxCount"])
    if not 1 <= least <= most:
        raise invalid("MinCount", f"{least} (it must be from 1 to MaxCount)")
    if most > COUNT_LIMIT:
        raise ApiError(
            "ResourceCountExceeded", f"More than {COUNT_LIMIT} instances in one request"
        )
    return least, most


def _user_data(parameters: Parameters) -> str:
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


def _check(parameters: Parameters) -> None:
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
    kind, image = parameters["InstanceType"], images.architecture(parameters["ImageId"])
    if image not in (None, architecture(kind)):
        raise ApiError(
            "InvalidParameterValue",
            f"The architecture '{architecture(kind)}' of the specified instance type does not match "
            f"the architecture '{image}' of the specified AMI. Specify an instance type and an AMI "
            "that have matching architectures, and try again. You can use 'describe-instance-types' "
            "or 'describe-images' to discover the architecture of the instance type or AMI.",
        )
    _check_root_size(parameters)
    hops = parameters.get("MetadataOptions", {}).get("HttpPutResponseHopLimit")
    if hops is not None and not 1 <= integer("HttpPutResponseHopLimit", hops) <= 64:
        raise invalid("HttpPutResponseHopLimit", hops)


def _check_root_size(parameters: Parameters) -> None:
    root = images.root_snapshot(parameters["ImageId"])
    for mapping in listed(parameters.get("BlockDeviceMapping"), "BlockDeviceMapping"):
        size = mapping.get("Ebs", {}).get("VolumeSize")
        if root is None or size is None or mapping.get("DeviceName") != root[0]:
            continue
        _, snapshot, least = root
        if integer("VolumeSize", size) < least:
            raise ApiError(
                "InvalidBlockDeviceMapping",
                f"Volume of size {size}GB is smaller than snapshot '{snapshot}', expect size >= "
                f"{least}GB",
            )


def zone_of(parameters: Parameters, region: str) -> tuple[str, bool]:
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
