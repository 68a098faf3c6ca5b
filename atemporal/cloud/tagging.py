"""CreateTags: the same tags for many instances and volumes at once.

Promise: the tags are put on all resources of a call or on none of them, as EC2 does it; a tag with a key
that a resource has gets the new value. The calls leave half of what EC2 allows to others: tags that
come late do no harm.
Source: API reference, CreateTags (up to 1000 resources a call).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from atemporal.cloud.caller import Caller
from atemporal.cloud.launch_request import tag_list
from atemporal.cloud.termination import batches, naming
from atemporal.limits import Limit

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

BATCH = 1000
_LEAVES = 0.5


class Taggings:
    """The calls that tag what is there; safe to share between threads."""

    def __init__(self, client: EC2Client, caller: Caller) -> None:
        """Take the client; nothing is called yet."""
        self._client = client
        self._caller = caller

    def put(self, ids: Iterable[str], tags: Mapping[str, str], purpose: str = "") -> None:
        """Tag all of these; `purpose` is for the sentence of a failure.

        Raises:
            CloudError: not done, or perhaps done; to do it again does no harm.
        """
        for chunk in batches(ids, BATCH):
            doing = f"tagging {naming(chunk)}{purpose}"
            self._caller.wait_for(Limit.CREATE_TAGS, doing, leave=_LEAVES)
            request = partial(self._client.create_tags, Resources=chunk, Tags=tag_list(tags))
            self._caller.send(Limit.CREATE_TAGS, doing, request)
