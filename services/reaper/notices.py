"""The notices' loop: EC2's events about our instances, as a reason to check them before the next sweep.

Promise: an event is never believed, only followed up: the instance it names is looked up in the
records and in EC2, and the sweep's own decision is made. So forged, repeated, late, disordered and
unreadable messages do nothing, and with the queue away only the time of the next sweep is lost.
"""

from __future__ import annotations

from atemporal.cloud import NOTICE_KINDS, Notices
from atemporal.fleet.plan import Limits
from atemporal.metrics import counter, series
from atemporal.states import AttemptState
from atemporal.store import reconciliation
from atemporal.store.database import Database
from atemporal.telemetry import log_context
from services.reaper.reaper import Reaper

_OTHER = "other"

NOTICES = counter(
    "atemporal_ec2_notices_total",
    "Notices from the queue of EC2's events, by what they say and whether they were followed.",
    kind=NOTICE_KINDS,
    result=["followed", "ignored"],
)
series(NOTICES, kind=[_OTHER], result=["ignored"])

WAIT_S = 1


class NoticeLoop:
    """Follows EC2's events."""

    name = "reap-notices"

    def __init__(
        self, reaper: Reaper, database: Database, notices: Notices, *, limits: Limits
    ) -> None:
        """Take the steps and the queue."""
        self._reaper = reaper
        self._database = database
        self._notices = notices
        self._limits = limits

    def tick(self) -> float:
        """Take some messages and check those of our instances that they name."""
        deliveries = self._notices.receive(wait_s=WAIT_S)
        kinds = {one.notice.instance_id: one.notice.kind for one in deliveries if one.notice}
        with self._database.begin() as tx:
            found = reconciliation.of_instances(tx, list(kinds)) if kinds else []
        ours = {
            one.instance_id: one.ref
            for one in found
            if one.instance_id and one.state is not AttemptState.CLOSED
        }
        for instance_id, ref in ours.items():
            self._reaper.log.info(
                "EC2 reports", kind=kinds[instance_id], **log_context(ref, instance_id)
            )
        if ours:
            self._reaper.check(list(ours.values()), self._limits)
        self._notices.done(deliveries)
        for delivery in deliveries:
            notice = delivery.notice
            if notice is None:
                NOTICES.labels(_OTHER, "ignored").inc()
            else:
                followed = notice.instance_id in ours
                NOTICES.labels(notice.kind, "followed" if followed else "ignored").inc()
        # A queue that does not let its readers wait must not be asked without a pause.
        return 0.0 if deliveries else 0.1

    def reset(self) -> None:
        """What was taken and not deleted comes again by itself."""
