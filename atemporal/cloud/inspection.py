"""Questions to EC2 for whoever looks why launches do not work: rights, images, networks, the time.

Promise: nothing is launched, ended or tagged. Calls that would do so are dry runs: EC2 answers whether
these credentials may make them, and does nothing.
Failure: an answer that something is not there is None; all others are `faults`, so that a missing right
to look can be told from an EC2 that does not answer.
Source: API reference, `DryRun` of each action (the error is DryRunOperation where the permissions are
there, else UnauthorizedOperation), and the Describe actions below; RFC 9110 for the header Date, which
has whole seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any, TypeVar

from botocore import xform_name

from atemporal.cloud.client import ec2_client
from atemporal.cloud.ec2 import PAGE, Cloud
from atemporal.cloud.faults import FOREIGN, CloudError, Rejected, classify
from atemporal.cloud.instance import DEPLOYMENT_TAG
from atemporal.cloud.launch_request import DEFAULT_ROOT_DEVICE
from atemporal.cloud.service_model import INSPECTED
from atemporal.model import AttemptRef, Launch
from atemporal.settings import Settings

T = TypeVar("T")

_READ_TIMEOUT_S = 10.0
_WOULD_HAVE = "DryRunOperation"
_EVERYWHERE = ("0.0.0.0/0", "::/0")
_TARGETS = ("GatewayId", "NatGatewayId", "TransitGatewayId", "NetworkInterfaceId", "InstanceId")


@dataclass(frozen=True)
class Image:
    """An AMI, as EC2 lists it; `root_gb` is the least that its root volume may have."""

    id: str
    name: str
    owner: str
    state: str
    architecture: str
    root_gb: int | None = None


@dataclass(frozen=True)
class Own:
    """An instance of ours, and a volume that it has."""

    instance: str
    volume: str | None


@dataclass(frozen=True)
class Subnet:
    """A subnet; `public` is whether its instances get public addresses."""

    id: str
    vpc: str
    zone: str
    state: str
    free: int
    public: bool


@dataclass(frozen=True)
class Egress:
    """What a security group lets out: `ports` None is all; `elsewhere` what is no range of addresses."""

    protocol: str
    ports: tuple[int, int] | None
    ranges: tuple[str, ...]
    elsewhere: bool = False


@dataclass(frozen=True)
class SecurityGroup:
    """A security group with what it lets out."""

    id: str
    vpc: str
    egress: tuple[Egress, ...]


@dataclass(frozen=True)
class Route:
    """Where a subnet sends what is for the internet, and whether that is there."""

    target: str
    active: bool

    @property
    def to_internet_gateway(self) -> bool:
        """Whether only instances with a public address come out there."""
        return self.target.startswith("igw-")


class Inspection:
    """One region of EC2, asked. Close it, or use it in a `with`; safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        """Make the client; nothing is asked yet.

        Raises:
            Invalid: the region or the endpoint's URL is malformed.
            Unauthorized: the AWS profile that the environment names does not exist.
        """
        self._settings = settings
        self._ec2 = ec2_client(settings, INSPECTED, read_timeout_s=_READ_TIMEOUT_S)
        self._date = ""
        self._ec2.meta.events.register("after-call.ec2", self._note_date)
        self.cloud = Cloud(settings, client=self._ec2)

    def __enter__(self) -> Inspection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self.cloud.close()

    def dry_run(self, action: str, **request: Any) -> CloudError | None:
        """Ask whether a call would be carried out; returns what stands against it, None for nothing."""
        call = getattr(self._ec2, xform_name(action))
        try:
            self._asked(f"a dry run of {action}", lambda: call(DryRun=True, **request))
        except CloudError as error:
            if isinstance(error, Rejected) and error.code == _WOULD_HAVE:
                return None
            return error
        return None

    @cached_property
    def own(self) -> Own | None:
        """An instance of this deployment that EC2 shows, to ask about; None where there is none.

        Raises:
            Forbidden: we may not look.
            Retry: EC2 can not be asked now.
        """
        filters: Any = [
            {"Name": f"tag:{DEPLOYMENT_TAG}", "Values": [self._settings.deployment]},
            {"Name": "instance-state-name", "Values": ["pending", "running"]},
        ]
        found = self._asked(
            "looking for an instance of this deployment",
            lambda: self._ec2.describe_instances(Filters=filters, MaxResults=PAGE),
        )
        for reservation in found.get("Reservations", ()):
            for one in reservation.get("Instances", ()):
                disks = [disk.get("Ebs", {}) for disk in one.get("BlockDeviceMappings", ())]
                volume = next((disk["VolumeId"] for disk in disks if "VolumeId" in disk), None)
                return Own(one["InstanceId"], volume)
        return None

    def run_instances(
        self, ref: AttemptRef, launch: Launch, user_data: bytes
    ) -> CloudError | None:
        """Ask whether EC2 would launch this; as `dry_run`."""
        return self.dry_run("RunInstances", **self.cloud.request(ref, launch, user_data))

    def date(self) -> datetime | None:
        """What EC2's clock showed in its last answer, to the second; None when it did not say."""
        try:
            return parsedate_to_datetime(self._date) if self._date else None
        except ValueError:
            return None

    def image(self, image_id: str) -> Image | None:
        """The AMI of that id; None where EC2 has none for us."""
        found = self._known(
            f"looking at image {image_id}",
            lambda: self._ec2.describe_images(ImageIds=[image_id]).get("Images", []),
        )
        if not found:
            return None
        one = found[0]
        root = one.get("RootDeviceName") or DEFAULT_ROOT_DEVICE
        sizes = {m.get("DeviceName"): m.get("Ebs", {}) for m in one.get("BlockDeviceMappings", ())}
        return Image(
            image_id,
            one.get("Name", ""),
            one.get("OwnerId", ""),
            one.get("State", ""),
            one.get("Architecture", ""),
            sizes.get(root, {}).get("VolumeSize"),
        )

    def architectures(self, instance_type: str) -> tuple[str, ...] | None:
        """The architectures of a type's processors; None where this region does not have the type."""
        named: Any = [{"Name": "instance-type", "Values": [instance_type]}]
        found = self._known(
            f"looking up the type {instance_type}",
            lambda: self._ec2.describe_instance_types(Filters=named).get("InstanceTypes", []),
        )
        if not found:
            return None
        return tuple(found[0].get("ProcessorInfo", {}).get("SupportedArchitectures", ()))

    def subnet(self, subnet_id: str) -> Subnet | None:
        """The subnet of that id; None where there is none."""
        found = self._known(
            f"looking at subnet {subnet_id}",
            lambda: self._ec2.describe_subnets(SubnetIds=[subnet_id]).get("Subnets", []),
        )
        if not found:
            return None
        one = found[0]
        return Subnet(
            subnet_id,
            one.get("VpcId", ""),
            one.get("AvailabilityZone", ""),
            one.get("State", ""),
            one.get("AvailableIpAddressCount", 0),
            one.get("MapPublicIpOnLaunch", False),
        )

    def security_group(self, group_id: str) -> SecurityGroup | None:
        """The security group of that id; None where there is none."""
        found = self._known(
            f"looking at security group {group_id}",
            lambda: self._ec2.describe_security_groups(GroupIds=[group_id]).get(
                "SecurityGroups", []
            ),
        )
        if not found:
            return None
        rules = tuple(_egress(rule) for rule in found[0].get("IpPermissionsEgress", ()))
        return SecurityGroup(group_id, found[0].get("VpcId", ""), rules)

    def default_route(self, subnet: Subnet) -> Route | None:
        """The subnet's route to the internet: of its own table, else of the VPC's main one."""
        tables = self._tables("association.subnet-id", subnet.id) or self._tables(
            "association.main", "true", subnet.vpc
        )
        for table in tables:
            for route in table.get("Routes", ()):
                if route.get("DestinationCidrBlock") == _EVERYWHERE[0]:
                    target = next((route[name] for name in _TARGETS if route.get(name)), "")
                    return Route(str(target), route.get("State") == "active")
        return None

    def has_key_pair(self, name: str) -> bool:
        """Whether there is a key pair of that name."""
        return bool(
            self._known(
                f"looking for the key pair {name}",
                lambda: self._ec2.describe_key_pairs(KeyNames=[name]).get("KeyPairs", []),
            )
        )

    def _tables(self, name: str, value: str, vpc: str = "") -> list[Any]:
        filters: Any = [{"Name": name, "Values": [value]}]
        if vpc:
            filters.append({"Name": "vpc-id", "Values": [vpc]})
        return self._asked(
            f"looking at the routes of {vpc or value}",
            lambda: list(self._ec2.describe_route_tables(Filters=filters).get("RouteTables", [])),
        )

    def _known(self, doing: str, call: Callable[[], list[T]]) -> list[T]:
        """What there is of it; nothing where EC2 refuses the id or the name."""
        try:
            return self._asked(doing, call)
        except Rejected:
            return []

    def _asked(self, doing: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except FOREIGN as error:
            raise classify(error, doing, reading=True) from error

    def _note_date(self, http_response: Any, **_: object) -> None:
        self._date = http_response.headers.get("Date", "")


def _egress(rule: Any) -> Egress:
    first, last = rule.get("FromPort"), rule.get("ToPort")
    everything = rule.get("IpProtocol") == "-1" or first is None or last is None
    ranges = [
        *(one["CidrIp"] for one in rule.get("IpRanges", ())),
        *(one["CidrIpv6"] for one in rule.get("Ipv6Ranges", ())),
    ]
    return Egress(
        rule.get("IpProtocol", ""),
        None if everything else (first, last),
        tuple(ranges),
        bool(rule.get("PrefixListIds") or rule.get("UserIdGroupPairs")),
    )
