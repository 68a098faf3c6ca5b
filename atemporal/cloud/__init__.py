"""EC2, as the rest of the project sees it: one instance for one attempt.

Promise: no boto3 type and no botocore exception leaves this package. `ec2.Cloud` makes the calls,
`instance.Instance` is what it returns, `notices` brings EC2's own events, `faults` says of every
failure whether the thing was surely not done, may be done later, or may have been done already.
"""

from atemporal.cloud.ec2 import Cloud
from atemporal.cloud.faults import (
    FAILURES,
    MAYBE_TAGS,
    CloudError,
    Forbidden,
    NoAnswer,
    NoCapacity,
    NoInstance,
    OverQuota,
    Rejected,
    ServerFault,
    TagRefused,
    Throttled,
    TokenMismatch,
    TokenSpent,
    TooMany,
    Unauthorized,
    Unreachable,
    WrongImage,
)
from atemporal.cloud.instance import Instance
from atemporal.cloud.notices import NOTICE_KINDS, Notice, Notices
from atemporal.cloud.volume import Volume

__all__ = [
    "FAILURES",
    "MAYBE_TAGS",
    "NOTICE_KINDS",
    "Cloud",
    "CloudError",
    "Forbidden",
    "Instance",
    "NoAnswer",
    "NoCapacity",
    "NoInstance",
    "Notice",
    "Notices",
    "OverQuota",
    "Rejected",
    "ServerFault",
    "TagRefused",
    "Throttled",
    "TokenMismatch",
    "TokenSpent",
    "TooMany",
    "Unauthorized",
    "Unreachable",
    "Volume",
    "WrongImage",
]
