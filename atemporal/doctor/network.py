"""Checks of where instances are launched: subnets, security groups, the key pair.

Promise: what can be known from outside: that they are there, that they belong together, that what leaves
an instance finds a way out. Whether the API lets it in is beyond EC2's answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from atemporal.cloud import Forbidden
from atemporal.cloud.inspection import Egress, Route, SecurityGroup, Subnet
from atemporal.doctor.check import Check, Result, ok, unchecked, warning, worst, wrong
from atemporal.doctor.cloud import REACHABLE
from atemporal.doctor.instruments import Instruments
from atemporal.doctor.launch import may_not_look

_FEW = 16
_HTTPS = 443
_TCP = ("-1", "tcp", "6")
_EVERYWHERE = "0.0.0.0/0"
_SUBNETS = "correct ATEMPORAL_SUBNETS, and restart the launchers"
_GROUPS = "correct ATEMPORAL_SECURITY_GROUPS, and restart the launchers"
_LOOKER = "doctor"


def subnets(instruments: Instruments) -> Result:
    """Each subnet is there, has free addresses, and a way out."""
    names = instruments.settings.subnets
    if not names:
        return ok("none is set: EC2's default subnet is taken")
    parts: list[Result] = []
    for name in names:
        try:
            found = instruments.ec2.subnet(name)
        except Forbidden as error:
            return may_not_look(error, "DescribeSubnets", _LOOKER)
        if found is None:
            parts.append(
                wrong(f"there is no subnet {name} in {instruments.settings.region}", _SUBNETS)
            )
            continue
        try:
            parts += of_subnet(found, instruments.ec2.default_route(found))
        except Forbidden as error:
            parts.append(may_not_look(error, "DescribeRouteTables", _LOOKER))
    return worst(parts, well=f"{len(names)}, each with free addresses and a way out")


def of_subnet(subnet: Subnet, route: Route | None) -> list[Result]:
    """What is to be said of a subnet that is there, with its route to the internet."""
    named = f"subnet {subnet.id} ({subnet.zone})"
    parts: list[Result] = []
    if subnet.state != "available":
        parts.append(wrong(f"{named} is {subnet.state}, not available", _SUBNETS))
    if not subnet.free:
        parts.append(
            wrong(f"{named} has no free address", "add a subnet with some to ATEMPORAL_SUBNETS")
        )
    elif subnet.free < _FEW:
        parts.append(
            warning(
                f"{named} has {subnet.free} free addresses: so many instances at most",
                "add a larger subnet to ATEMPORAL_SUBNETS",
            )
        )
    if route is None:
        parts.append(
            warning(
                f"{named} has no route to the internet",
                "see that the registry, the API and EC2 are reached another way (VPC endpoints, "
                "peering), or add a route to a NAT or internet gateway",
            )
        )
    elif not route.active:
        parts.append(
            wrong(
                f"{named}: its way out is {route.target or 'nothing'}, which is gone",
                "give its route table one to a NAT or internet gateway that is there",
            )
        )
    elif route.to_internet_gateway and not subnet.public:
        parts.append(
            wrong(
                f"{named} gives no public addresses, and its way out is {route.target}, which lets out "
                "only instances that have one",
                "switch on its `auto-assign public IPv4 address`, or route it by a NAT gateway",
            )
        )
    return parts


def security_groups(instruments: Instruments) -> Result:
    """Each security group is there, is of the subnets' VPC, and together they let machines out."""
    settings = instruments.settings
    names = settings.security_groups
    if not names:
        return ok("none is set: the VPC's default group is taken")
    found: list[SecurityGroup] = []
    parts: list[Result] = []
    try:
        for name in names:
            group = instruments.ec2.security_group(name)
            if group is None:
                where = settings.region
                parts.append(wrong(f"there is no security group {name} in {where}", _GROUPS))
            else:
                found.append(group)
    except Forbidden as error:
        return may_not_look(error, "DescribeSecurityGroups", _LOOKER)
    parts += of_one_vpc(found, _known_subnets(instruments))
    if not parts:
        parts += lets_out(found, settings.callback_url)
    return worst(parts, well=f"{len(names)}, of one VPC, which let machines out")


def _known_subnets(instruments: Instruments) -> list[Subnet]:
    """Those that are there and may be looked at; what is wrong with the others is said elsewhere."""
    try:
        found = [instruments.ec2.subnet(name) for name in instruments.settings.subnets]
    except Forbidden:
        return []
    return [one for one in found if one is not None]


def of_one_vpc(groups: Sequence[SecurityGroup], subnets: Sequence[Subnet]) -> list[Result]:
    """EC2 launches with groups of the subnet's own VPC only."""
    return [
        wrong(
            f"security group {group.id} is of {group.vpc}, subnet {subnet.id} of {subnet.vpc}: EC2 "
            "refuses to launch with both",
            "let ATEMPORAL_SECURITY_GROUPS and ATEMPORAL_SUBNETS be of one VPC",
        )
        for group in groups
        for subnet in subnets
        if group.vpc != subnet.vpc
    ]


def lets_out(groups: Sequence[SecurityGroup], callback_url: str) -> list[Result]:
    """What leaves a machine: to the API, and by HTTPS to a registry."""
    url = urlsplit(callback_url)
    port = url.port or (_HTTPS if url.scheme == "https" else 80)
    rules = [rule for group in groups for rule in group.egress]
    names = ", ".join(group.id for group in groups)
    parts: list[Result] = []
    to_api = _passes(rules, port, url.hostname or "")
    if to_api is None:
        parts.append(
            unchecked(
                f"whether {names} let machines out to {url.hostname}: not to everywhere, and what that "
                "name stands for on a machine is not known here",
                f"see that they allow TCP to port {port} of the API",
            )
        )
    elif not to_api:
        parts.append(
            wrong(
                f"{names} let nothing out to port {port} of {url.hostname}: no machine can report",
                f"allow outbound TCP to port {port} of the API",
            )
        )
    if _passes(rules, _HTTPS, "") is False:
        parts.append(
            warning(
                f"{names} let nothing out to port {_HTTPS}: most registries are there",
                "allow outbound TCP to port 443, unless images come by another port",
            )
        )
    return parts


def _passes(rules: Iterable[Egress], port: int, host: str) -> bool | None:
    """Whether a rule lets out to that port of the host; None where that depends on what is not known."""
    try:
        address = ip_address(host)
    except ValueError:
        address = None
    answer: bool | None = False
    for rule in rules:
        first, last = rule.ports or (0, 65535)
        if rule.protocol not in _TCP or not first <= port <= last:
            continue
        if _EVERYWHERE in rule.ranges:
            return True
        if address is not None and any(address in ip_network(one) for one in rule.ranges):
            return True
        if rule.elsewhere or address is None:
            answer = None
    return answer


def key_pair(instruments: Instruments) -> Result:
    """The key pair is there, if one is set."""
    name = instruments.settings.key_name
    if not name:
        return ok("none is set")
    try:
        if instruments.ec2.has_key_pair(name):
            return ok(f"{name} is there")
    except Forbidden as error:
        return may_not_look(error, "DescribeKeyPairs", _LOOKER)
    return wrong(
        f"there is no key pair {name} in {instruments.settings.region}",
        "correct ATEMPORAL_KEY_NAME or unset it, and restart the launchers",
    )


CHECKS = (
    Check("ec2.subnets", subnets, (REACHABLE,)),
    Check("ec2.security-groups", security_groups, (REACHABLE,)),
    Check("ec2.key-pair", key_pair, (REACHABLE,)),
)
