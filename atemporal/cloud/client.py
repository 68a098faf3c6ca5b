"""botocore's client for EC2, as every process here makes it.

Promise: making one asks nothing of EC2, and the client repeats nothing by itself: each call has to have
its token, and an answer its meaning (`caller`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from botocore.config import Config

from atemporal.cloud.faults import FOREIGN, classify
from atemporal.cloud.service_model import session
from atemporal.errors import Invalid
from atemporal.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

_CONNECT_TIMEOUT_S = 5
_READ_TIMEOUT_S = 20


def ec2_client(
    settings: Settings, more: tuple[str, ...] = (), *, read_timeout_s: float = _READ_TIMEOUT_S
) -> EC2Client:
    """Make one, which can make the calls `more` beside those of the daemons.

    Raises:
        Invalid: the region or the endpoint's URL is malformed.
        Unauthorized: the AWS profile that the environment names does not exist.
    """
    try:
        client = session(more).create_client(
            "ec2",
            region_name=settings.region,
            endpoint_url=settings.ec2_endpoint_url,
            config=Config(
                connect_timeout=_CONNECT_TIMEOUT_S,
                read_timeout=read_timeout_s,
                retries={"mode": "standard", "total_max_attempts": 1},
            ),
        )
    except ValueError as error:  # botocore's word for a malformed URL or region
        raise Invalid({"region, ec2_endpoint_url": str(error)}) from error
    except FOREIGN as error:
        raise classify(error, "setting up the EC2 client") from error
    return cast("EC2Client", client)
