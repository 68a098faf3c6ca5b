"""The network that instances are launched into: subnets, security groups, routes, to be read.

Promise: the account has one VPC, as a new account's default one: a route to an internet gateway, subnets
that give public addresses, security groups that let everything out. Any well-formed id names a subnet or
a group of it, as RunInstances has it, and a subnet's zone follows from its id; one that is not there
is the fault `missing`.
Source: API reference, DescribeSubnets, DescribeSecurityGroups, DescribeRouteTables, DescribeKeyPairs and
their error codes; the VPC guide on default VPCs.
"""

from __future__ import annotations

import re
from typing import Any

from atemporal.twin.ec2 import launching
from atemporal.twin.ec2.account import Account
from atemporal.twin.ec2.action import Parameters, Response
from atemporal.twin.ec2.filters import Values, select
from atemporal.twin.ec2.wire import ApiError, listed
from atemporal.twin.state import OWNER

VPC = "vpc-0de6f2c1a39b4875e"
_MAIN_TABLE = "rtb-05d1c9a7e8f3b2460"
_GATEWAY = "igw-0c3a5e7f9b1d24680"
_CIDR = "172.31.0.0/16"
# A /20 has 4096 addresses, of which AWS keeps five.
_FREE = 4091

_SUBNET = re.compile(r"subnet-[0-9a-f]{8,17}")
_GROUP = re.compile(r"sg-[0-9a-f]{8,17}")
_SUBNET_FILTERS: dict[str, Values[dict[str, Any]]] = {
    "subnet-id": lambda one: [one["subnetId"]],
    "vpc-id": lambda one: [one["vpcId"]],
    "availability-zone": lambda one: [one["availabilityZone"]],
}
_GROUP_FILTERS: dict[str, Values[dict[str, Any]]] = {
    "group-id": lambda one: [one["groupId"]],
    "vpc-id": lambda one: [one["vpcId"]],
}
_TABLE_FILTERS: dict[str, Values[dict[str, Any]]] = {
    "vpc-id": lambda one: [one["vpcId"]],
    "route-table-id": lambda one: [one["routeTableId"]],
    "association.main": lambda _: ["true"],
    # The subnets have no table of their own: the main one is theirs.
    "association.subnet-id": lambda _: [],
}


def describe_subnets(account: Account, parameters: Parameters) -> Response:
    """DescribeSubnets."""
    ids = listed(parameters.get("SubnetId"), "SubnetId") or _filtered(parameters, "subnet-id")
    for one in ids:
        if not _SUBNET.fullmatch(one):
            raise ApiError("InvalidSubnetID.NotFound", f"The subnet ID '{one}' does not exist")
    found = [_subnet(one, account.region) for one in ids]
    return {
        "subnetSet": select(found, parameters, _SUBNET_FILTERS, lambda _: {}),
        "nextToken": None,
    }


def describe_security_groups(_account: Account, parameters: Parameters) -> Response:
    """DescribeSecurityGroups."""
    ids = listed(parameters.get("GroupId"), "GroupId") or _filtered(parameters, "group-id")
    for one in ids:
        if not _GROUP.fullmatch(one):
            raise ApiError("InvalidGroupId.Malformed", f'Invalid id: "{one}" (expecting "sg-...")')
    found = [_group(one) for one in ids]
    return {
        "securityGroupInfo": select(found, parameters, _GROUP_FILTERS, lambda _: {}),
        "nextToken": None,
    }


def describe_route_tables(_account: Account, parameters: Parameters) -> Response:
    """DescribeRouteTables."""
    table = {
        "routeTableId": _MAIN_TABLE,
        "vpcId": VPC,
        "ownerId": OWNER,
        "associationSet": [{"routeTableId": _MAIN_TABLE, "main": True}],
        "routeSet": [
            {"destinationCidrBlock": _CIDR, "gatewayId": "local", "state": "active"},
            {"destinationCidrBlock": "0.0.0.0/0", "gatewayId": _GATEWAY, "state": "active"},
        ],
    }
    return {
        "routeTableSet": select([table], parameters, _TABLE_FILTERS, lambda _: {}),
        "nextToken": None,
    }


def describe_key_pairs(_account: Account, parameters: Parameters) -> Response:
    """DescribeKeyPairs: any name is one's."""
    names = listed(parameters.get("KeyName"), "KeyName")
    return {"keySet": [{"keyName": name, "keyType": "ed25519"} for name in names]}


def _subnet(subnet_id: str, region: str) -> dict[str, Any]:
    zone, _ = launching.zone_of({"SubnetId": subnet_id}, region)
    return {
        "subnetId": subnet_id,
        "vpcId": VPC,
        "ownerId": OWNER,
        "state": "available",
        "availabilityZone": zone,
        "availableIpAddressCount": _FREE,
        "mapPublicIpOnLaunch": True,
        "defaultForAz": True,
    }


def _group(group_id: str) -> dict[str, Any]:
    everywhere = {"ipProtocol": "-1", "ipRanges": [{"cidrIp": "0.0.0.0/0"}]}
    return {
        "groupId": group_id,
        "groupName": group_id,
        "groupDescription": "a security group",
        "vpcId": VPC,
        "ownerId": OWNER,
        "ipPermissions": [],
        "ipPermissionsEgress": [everywhere],
    }


def _filtered(parameters: Parameters, name: str) -> list[str]:
    return [
        value
        for one in listed(parameters.get("Filter"), "Filter")
        if one.get("Name") == name
        for value in listed(one.get("Value"), "Filter.N.Value")
    ]
