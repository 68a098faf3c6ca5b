"""Pages of a listing.

Promise: whatever comes and goes between two pages, a thing that is there all the time is on exactly
one of them. The token names the last instance of the page before.
"""

from __future__ import annotations

import base64
import binascii

from atemporal.twin.ec2.action import Parameters
from atemporal.twin.ec2.wire import ApiError, integer
from atemporal.twin.state import Instance, order

SIZES = range(5, 1001)


def cut(found: list[Instance], parameters: Parameters) -> tuple[list[Instance], str | None]:
    """Return the page that a request asks for, and the token of the next one.

    Raises:
        ApiError: the token or the size is none that EC2 takes.
    """
    if token := parameters.get("NextToken"):
        try:
            at, last = base64.urlsafe_b64decode(token).decode().split(" ")
            after = (float(at), last)
        except (ValueError, binascii.Error):
            raise ApiError("InvalidParameterValue", "Unable to parse pagination token") from None
        found = [instance for instance in found if order(instance) > after]
    if "MaxResults" not in parameters:
        return found, None
    size = integer("MaxResults", parameters["MaxResults"])
    if size not in SIZES:
        raise ApiError(
            "InvalidParameterValue",
            f"Value ( {size} ) for parameter maxResults is invalid. Expecting a value greater "
            f"than {SIZES.start - 1} and not more than {SIZES.stop - 1}.",
        )
    page = found[:size]
    if len(found) <= size:
        return page, None
    launched_at, instance_id = order(page[-1])
    return page, base64.urlsafe_b64encode(f"{launched_at!r} {instance_id}".encode()).decode()
