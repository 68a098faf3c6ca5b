"""DescribeInstanceTypes: how many vCPUs the instance types have.

Promise: asked by a filter, so a type that EC2 does not have here is left out and spoils no other's
answer.
Source: API reference, DescribeInstanceTypes (`VCpuInfo.DefaultVCpus`; up to 100 a page, 200 values of a
filter). The default number is the one that a launch gets that asks for no other, as ours do.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING, Any

from atemporal.cloud.caller import Caller
from atemporal.limits import Limit

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

MOST = 100
"""So many types may be asked for at once: they are one page."""


def vcpus(client: EC2Client, caller: Caller, types: Collection[str]) -> dict[str, int]:
    """The vCPUs of up to `MOST` types that EC2 has in this region.

    Raises:
        Retry: EC2 can not be asked now.
        Refused: EC2 does not let this process ask.
    """
    request: dict[str, Any] = {
        "Filters": [{"Name": "instance-type", "Values": sorted(types)}],
        "MaxResults": MOST,
    }
    doing = f"looking up the vCPUs of {', '.join(sorted(types))}"
    page = caller.read(Limit.DESCRIBE, doing, partial(client.describe_instance_types, **request))
    return {
        item["InstanceType"]: item["VCpuInfo"]["DefaultVCpus"]
        for item in page.get("InstanceTypes", ())
    }
