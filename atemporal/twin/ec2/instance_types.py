"""DescribeInstanceTypes: what follows from a type's name, no more.

Promise: the vCPUs are those of EC2 for the sizes of its current families: `large` has 2, `xlarge` 4,
`Nxlarge` 4 N; the smaller ones of a burstable family 2, of any other 1. A name of no such form is no
type. The types that are listed without a filter are a few of the usual ones.
Source: the EC2 instance types guide, "Specifications" of general purpose and compute optimized types.
"""

from __future__ import annotations

import re
from typing import Any

from atemporal.architecture import architecture
from atemporal.twin.ec2.account import Account
from atemporal.twin.ec2.action import Parameters, Response
from atemporal.twin.ec2.filters import Values, select
from atemporal.twin.ec2.wire import listed

USUAL = ("t3.small", "t3.large", "m7i.large", "m7i.xlarge", "c7i.large", "c7i.8xlarge")
_NAME = re.compile(r"(?P<family>[a-z]+[0-9][a-z0-9-]*)\.(?P<size>[a-z0-9-]+)")
_SMALL = ("nano", "micro", "small", "medium")
_TIMES = re.compile(r"([0-9]+)xlarge")

_FILTERS: dict[str, Values[dict[str, Any]]] = {
    "instance-type": lambda one: [one["instanceType"]],
}


def vcpus(name: str) -> int | None:
    """A type's vCPUs; None where there is none of this name."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    size = match["size"]
    if size in _SMALL:
        return 2 if match["family"].startswith("t") else 1
    if size == "large":
        return 2
    if size == "xlarge":
        return 4
    times = _TIMES.fullmatch(size)
    return 4 * int(times[1]) if times else None


def describe(_account: Account, parameters: Parameters) -> Response:
    """DescribeInstanceTypes."""
    asked = listed(parameters.get("InstanceType"), "InstanceType")
    for one in listed(parameters.get("Filter"), "Filter"):
        if one.get("Name") == "instance-type":
            asked += listed(one.get("Value"), "Value")
    known = {name: vcpus(name) for name in asked or USUAL}
    found = [
        {
            "instanceType": name,
            "vCpuInfo": {"defaultVCpus": many},
            "processorInfo": {"supportedArchitectures": [architecture(name)]},
        }
        for name, many in known.items()
        if many is not None
    ]
    return {
        "instanceTypeSet": select(found, parameters, _FILTERS, lambda _: {}),
        "nextToken": None,
    }
