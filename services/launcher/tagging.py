"""The tags that a group's launch could not give: which job and which attempt an instance has.

Promise: they are for people and for AWS's bills; nothing of ours needs them, for the records name each
instance. So they come last, by calls that leave half of their limit to others, and what is not done
is done at the next look.
"""

from __future__ import annotations

from atemporal.cloud import Cloud, CloudError, NoInstance
from atemporal.metrics import counter
from atemporal.store import groups
from atemporal.store.database import Database
from atemporal.telemetry import log_context, logger

TAGGINGS = counter(
    "atemporal_taggings_total",
    "Taggings of launch groups' instances with the tags of their jobs.",
    result=["tagged", "failed"],
)

_BATCH = 25


class TagLoop:
    """Tags the instances of launch groups, one call each: no two have the same job."""

    name = "launch-tags"

    def __init__(self, database: Database, cloud: Cloud, *, interval_s: float) -> None:
        """Take both sides."""
        self._database = database
        self._cloud = cloud
        self._interval_s = interval_s
        self._log = logger("launcher")

    def tick(self) -> float:
        """Tag some of those that have none, if no other launcher does."""
        with self._database.only_one("launch tags") as mine:
            if not mine:
                return self._interval_s
            with self._database.begin() as tx:
                found = groups.untagged(tx, limit=_BATCH)
            for ref, instance_id in found:
                try:
                    self._cloud.tag(instance_id, ref)
                except NoInstance:
                    # Too young to be known everywhere, or gone: the next look will tell.
                    TAGGINGS.labels("failed").inc()
                except CloudError as error:
                    TAGGINGS.labels("failed").inc()
                    self._log.warning(
                        "not tagged", error=str(error), **log_context(ref, instance_id)
                    )
                    return self._interval_s
                else:
                    TAGGINGS.labels("tagged").inc()
                    with self._database.begin() as tx:
                        groups.tagged(tx, ref)
        return min(self._interval_s, 1.0) if found else self._interval_s

    def reset(self) -> None:
        """Nothing of its own is open between ticks."""
