"""The actions of EC2's API that the twin has.

Promise: `ACTIONS` is the only list of them. `call` is the one way to their handlers, so what holds
for every action is here: an unknown one is `InvalidAction`, a DryRun does nothing.
"""

from __future__ import annotations

from atemporal.twin.ec2 import images, instance_types, instances, launching, network, tags, volumes
from atemporal.twin.ec2.account import Account
from atemporal.twin.ec2.action import Action, Parameters, Rate, Response
from atemporal.twin.ec2.wire import ApiError, boolean

ACTIONS = {
    "RunInstances": Action(
        launching.run, requests=Rate(5, 2), resources=Rate(1000, 2), launches=True
    ),
    "TerminateInstances": Action(
        instances.terminate, requests=Rate(100, 5), resources=Rate(1000, 20)
    ),
    "DescribeInstances": Action(instances.describe, unfiltered=Rate(50, 10)),
    "DescribeInstanceStatus": Action(instances.describe_status, unfiltered=Rate(50, 10)),
    "DescribeInstanceAttribute": Action(instances.describe_attribute),
    "GetConsoleOutput": Action(instances.get_console_output),
    "CreateTags": Action(tags.create, requests=Rate(100, 10), ids="ResourceId"),
    "DescribeVolumes": Action(volumes.describe),
    "DeleteVolume": Action(volumes.delete),
    "DescribeImages": Action(images.describe),
    "DescribeInstanceTypes": Action(instance_types.describe),
    "DescribeSubnets": Action(network.describe_subnets),
    "DescribeSecurityGroups": Action(network.describe_security_groups, unfiltered=Rate(50, 10)),
    "DescribeRouteTables": Action(network.describe_route_tables),
    "DescribeKeyPairs": Action(network.describe_key_pairs),
}


def call(account: Account, name: str, parameters: Parameters) -> Response:
    """Carry out one request.

    Raises:
        ApiError: EC2 would refuse it, or the twin does not have the action.
    """
    if name not in ACTIONS:
        raise ApiError("InvalidAction", f"The action {name} is not valid for this web service")
    if boolean(parameters.pop("DryRun", None)):
        raise ApiError(
            "DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412
        )
    return ACTIONS[name].handler(account, parameters)
