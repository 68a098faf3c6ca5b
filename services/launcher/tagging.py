"""The tags that a group's launch could not give: which job and which attempt an instance has.

Promise: they are for people and for AWS's bills; nothing of ours needs them, for the records name each
instance. So they come last, by calls that leave half of their limit to others, and what is not done
is done at the next look.
Failure: an instance that EC2 refuses to tag holds up none behind it; what concerns all of them ends the
look.
"""

from __future__ import annotations

from atemporal.cloud import Cloud, CloudError, NoAnswer, NoInstance, Throttled, Unauthorized
from atemporal.errors import Refused
from atemporal.metrics import counter
from atemporal.model import AttemptRef
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
        self._refused: set[AttemptRef] = set()

    def tick(self) -> float:
        """Tag some of those that have none, if no other launcher does."""
        with self._database.only_one("launch tags") as mine:
            if not mine:
                return self._interval_s
            with self._database.begin() as tx:
                untagged = groups.untagged(tx, limit=_BATCH + len(self._refused))
            # Refused for good: a batch of them would hide all that came later.
            self._refused.intersection_update(ref for ref, _ in untagged)
            found = [one for one in untagged if one[0] not in self._refused]
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
                    if isinstance(error, (Throttled, Unauthorized, NoAnswer)):
                        return self._interval_s
                    if isinstance(error, Refused):
                        self._refused.add(ref)
                else:
                    TAGGINGS.labels("tagged").inc()
                    with self._database.begin() as tx:
                        groups.tagged(tx, ref)
        return min(self._interval_s, 1.0) if found else self._interval_s

    def reset(self) -> None:
        """Nothing of its own is open between ticks."""
