"""The loop that deletes what finished long ago.

Promise: a finished job is kept for as long as the setting says, and then goes with all that is of it; so
is a dead letter. Log chunks and the sums of costs go by ages of their own. One reaper deletes at a time,
in batches so small that nobody waits for them.
Failure: what can not be deleted yet (`atemporal.store.retention`) is tried again with the next batch.
"""

from __future__ import annotations

from atemporal.metrics import counter
from atemporal.store import costs, retention
from atemporal.store.database import Database
from atemporal.telemetry import logger

DELETED = counter(
    "atemporal_jobs_deleted_total",
    "Finished jobs that were deleted, being older than the retention.",
)

BATCH = 500
# Between two batches, so that vacuum and everybody else come to their turn; and when all is done.
PAUSE_S, REST_S = 0.5, 60.0
_DAY_S = 86_400.0


class RetentionLoop:
    """Deletes jobs that finished more than so many days ago."""

    name = "retention"

    def __init__(
        self,
        database: Database,
        *,
        days: float,
        log_days: float = 7.0,
        cost_days: float = 800.0,
    ) -> None:
        """Take how long jobs are kept, with 0 for ever, the log chunks of jobs that are, and costs."""
        self._database = database
        self._keep_s = days * _DAY_S
        self._keep_chunks_s = log_days * _DAY_S
        self._keep_costs_s = cost_days * _DAY_S
        self._log = logger(self.name)

    def tick(self) -> float:
        """Delete one batch, unless another reaper does."""
        chunks, sums = self._delete_chunks(), self._delete_costs()
        if not self._keep_s:
            return PAUSE_S if BATCH in (chunks, sums) else REST_S
        deleted = groups = fires = letters = undecided = deliveries = messages = 0
        with self._database.only_one("retention") as mine:
            if mine:
                with self._database.begin() as tx:
                    deleted = retention.delete_finished(tx, keep_s=self._keep_s, limit=BATCH)
                    groups = retention.delete_empty_groups(tx, keep_s=self._keep_s, limit=BATCH)
                    fires = retention.delete_old_fires(tx, keep_s=self._keep_s, limit=BATCH)
                    letters, undecided = retention.delete_old_letters(
                        tx, keep_s=self._keep_s, limit=BATCH
                    )
                    deliveries = retention.delete_old_deliveries(
                        tx, keep_s=self._keep_s, limit=BATCH
                    )
                    messages = retention.delete_old_schedule_messages(
                        tx, keep_s=self._keep_s, limit=BATCH
                    )
                DELETED.inc(deleted)
                if undecided:
                    self._log.warning("dead letters nobody decided about deleted", count=undecided)
        batches = (chunks, sums, deleted, groups, fires, letters, deliveries, messages)
        return PAUSE_S if BATCH in batches else REST_S

    def _delete_chunks(self) -> int:
        with self._database.only_one("log chunks") as mine:
            if not mine:
                return 0
            with self._database.begin() as tx:
                return retention.delete_old_chunks(tx, keep_s=self._keep_chunks_s, limit=BATCH)

    def _delete_costs(self) -> int:
        with self._database.only_one("old costs") as mine:
            if not mine:
                return 0
            with self._database.begin() as tx:
                return costs.delete_old(tx, keep_s=self._keep_costs_s, limit=BATCH)

    def reset(self) -> None:
        """There is nothing to drop."""
