"""The loop that deletes what finished long ago.

Promise: a finished job is kept for as long as the setting says, and then goes with all that is of it;
one reaper deletes at a time, in batches so small that nobody waits for them.
Failure: what can not be deleted yet (`atemporal.store.retention`) is tried again with the next batch.
"""

from __future__ import annotations

from atemporal.metrics import counter
from atemporal.store import retention
from atemporal.store.database import Database

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

    def __init__(self, database: Database, *, days: float) -> None:
        """Take how long jobs are kept; with 0 they are kept for ever."""
        self._database = database
        self._keep_s = days * _DAY_S

    def tick(self) -> float:
        """Delete one batch, unless another reaper does."""
        if not self._keep_s:
            return REST_S
        deleted = groups = fires = 0
        with self._database.only_one("retention") as mine:
            if mine:
                with self._database.begin() as tx:
                    deleted = retention.delete_finished(tx, keep_s=self._keep_s, limit=BATCH)
                    groups = retention.delete_empty_groups(tx, keep_s=self._keep_s, limit=BATCH)
                    fires = retention.delete_old_fires(tx, keep_s=self._keep_s, limit=BATCH)
                DELETED.inc(deleted)
        return PAUSE_S if BATCH in (deleted, groups, fires) else REST_S

    def reset(self) -> None:
        """There is nothing to drop."""
