"""The tags that a group's launch could not give: which job and which attempt an instance has, and the
job's labels; on its volumes too.

Promise: nothing of ours needs them, for the records name each instance; they are for people, for AWS's
bills and for policies. So they come last, by calls that leave half of their limit to others, and what is
not done is done at the next look.
Mechanism: each attempt has one call for its instance and its volumes, with all of its tags. Labels that
several attempts have alike come before that, for all of them by one call. One listing says which volumes
many instances have.
Failure: an instance that EC2 refuses to tag holds up none behind it: it comes after those that have
failed less often. What concerns all of them ends the look. Where the labels are what EC2 refuses, the
attempt's own tags come without them; and the labels are left out for good when a later look shows the
same, since a right that is missing now may be there then.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from atemporal.cloud import (
    MAYBE_TAGS,
    Cloud,
    CloudError,
    Forbidden,
    NoAnswer,
    NoInstance,
    Throttled,
    Unauthorized,
)
from atemporal.errors import Refused
from atemporal.metrics import counter
from atemporal.model import AttemptRef
from atemporal.store import untagged
from atemporal.store.database import Database
from atemporal.store.untagged import Untagged
from atemporal.telemetry import log_context, logger

TAGGINGS = counter(
    "atemporal_taggings_total",
    "Taggings of launch groups' instances with the tags of their jobs.",
    result=["tagged", "failed"],
)

_BATCH = 25
_AHEAD = 200
"""For so many the volumes are looked up, and labels shared: what one listing can be filtered by."""
_SOON_S = 1.0
"""The next look comes so soon after one that has tagged something."""
_CONCERNS_ALL = (Throttled, Unauthorized, NoAnswer)
_VOLUMES_WITHIN_S = 60.0
"""An instance that has none by then is tagged alone: it is gone, or it has other disks."""


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
        self._failures: Counter[AttemptRef] = Counter()
        self._labels_refused: set[AttemptRef] = set()
        self._volumes: dict[AttemptRef, Sequence[str]] = {}

    def tick(self) -> float:
        """Tag some of those that have none, if no other launcher does."""
        with self._database.only_one("launch tags") as mine:
            if not mine:
                return self._interval_s
            with self._database.begin() as tx:
                # A batch of those that failed, or were refused for good, would hide all that came later.
                limit = _AHEAD + len(self._refused) + len(self._failures)
                listed = untagged.find(tx, limit=limit)
            self._forget_all_but({one.ref for one in listed})
            open_ = [one for one in listed if one.ref not in self._refused]
            found = sorted(open_, key=lambda one: self._failures[one.ref])[:_AHEAD]
            try:
                self._prepare([one for one in found if one.ref not in self._volumes])
                ready = [one for one in found if one.ref in self._volumes]
                tagged = [one for one in ready[:_BATCH] if self._tag(one)]
            except CloudError as error:
                self._log.warning("tagging waits", error=str(error))
                return self._interval_s
        return min(self._interval_s, _SOON_S) if tagged else self._interval_s

    def reset(self) -> None:
        """Nothing of its own is open between ticks."""

    def _forget_all_but(self, refs: set[AttemptRef]) -> None:
        self._refused &= refs
        self._labels_refused &= refs
        self._failures = Counter({ref: n for ref, n in self._failures.items() if ref in refs})
        self._volumes = {ref: ids for ref, ids in self._volumes.items() if ref in refs}

    def _prepare(self, new: Sequence[Untagged]) -> None:
        """Look up the volumes of these, and put labels on those that have them alike.

        Raises:
            CloudError: what concerns all of them; the volumes are known by then, or asked for again.
        """
        if not new:
            return
        within_s = _VOLUMES_WITHIN_S
        try:
            volumes = self._cloud.volumes_of(one.instance_id for one in new)
        except Forbidden as error:
            # The instances at least, where a policy of before does not let a launcher list volumes.
            self._log.warning("volumes not tagged", error=str(error))
            volumes, within_s = {}, 0.0
        alike: dict[frozenset[tuple[str, str]], list[Untagged]] = defaultdict(list)
        for one in new:
            if one.instance_id in volumes or one.age_s >= within_s:
                self._volumes[one.ref] = volumes.get(one.instance_id, ())
                alike[frozenset(one.labels.items())].append(one)
        for labels, members in alike.items():
            if labels and len(members) > 1:
                try:
                    resources = [id_ for one in members for id_ in self._resources(one)]
                    self._cloud.tag(resources, dict(labels))
                except _CONCERNS_ALL:
                    raise
                except CloudError as error:
                    # One that is bad fails all; each has a call of its own, which says which one.
                    self._log.info("labels not shared", error=str(error))

    def _tag(self, one: Untagged) -> bool:
        """Tag one instance and its volumes; returns whether they have all the tags that they will have.

        Raises:
            CloudError: what concerns all of them.
        """
        try:
            complete = self._put(one)
        except CloudError as error:
            TAGGINGS.labels("failed").inc()
            if isinstance(error, _CONCERNS_ALL):
                raise
            self._failures[one.ref] += 1
            if isinstance(error, NoInstance):
                # Too young to be known everywhere, or gone: a later look will tell, of its volumes too.
                self._volumes.pop(one.ref, None)
                return False
            context = log_context(one.ref, one.instance_id)
            self._log.warning("not tagged", error=str(error), **context)
            if isinstance(error, Refused):
                self._refused.add(one.ref)
            return False
        if not complete:
            TAGGINGS.labels("failed").inc()
            self._failures[one.ref] += 1
            return False
        TAGGINGS.labels("tagged").inc()
        with self._database.begin() as tx:
            untagged.done(tx, one.ref)
        return True

    def _put(self, one: Untagged) -> bool:
        """Put on the tags that EC2 takes; False where the labels are to be tried again."""
        try:
            self._cloud.tag(self._resources(one), one.labels, one.ref)
        except CloudError as error:
            labels_may_be_why = isinstance(error, (Refused, *MAYBE_TAGS))
            if not one.labels or not labels_may_be_why or isinstance(error, NoInstance):
                raise
            # Where this is refused as well, it is not for the labels.
            self._cloud.tag(self._resources(one), {}, one.ref)
            if one.ref not in self._labels_refused:
                self._labels_refused.add(one.ref)
                return False
            context = log_context(one.ref, one.instance_id)
            why = "tagged without the labels of its job; see ATEMPORAL_LABEL_TAGS"
            self._log.warning(why, labels=sorted(one.labels), error=str(error), **context)
        return True

    def _resources(self, one: Untagged) -> list[str]:
        return [one.instance_id, *self._volumes[one.ref]]
