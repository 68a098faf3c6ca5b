"""What becomes of an attempt that has no instance yet, as it is written into the books.

Promise: an instance that EC2 gave is written down in whatever state the attempt is by then; a refusal
of a repeated call is believed only after a look for what an earlier one launched; whoever waits says
for what, and is left to a sweep.
"""

from __future__ import annotations

from collections.abc import Callable

from atemporal.cloud import Cloud, Instance, TokenSpent
from atemporal.errors import AtemporalError
from atemporal.model import AttemptRef, Launch
from atemporal.settings import Settings
from atemporal.states import BlockedReason, Reason
from atemporal.store import attempts, launches
from atemporal.store.database import Database
from atemporal.telemetry import ENDED, STALE, log_context, logger

ACTOR = "launcher"
REPEAT_S = 5.0


class Books:
    """One launcher's hand in the books; safe to share between threads."""

    def __init__(
        self, settings: Settings, database: Database, cloud: Cloud, *, rng: Callable[[], float]
    ) -> None:
        """Take what it needs. `dice` gives numbers in [0, 1) for jitter."""
        self._database = database
        self._cloud = cloud
        self._stale_s = settings.stale_after_s
        self._rng = rng
        self._log = logger(ACTOR)

    def wait(
        self, ref: AttemptRef, launch: Launch, wait: BlockedReason, why: str, seconds: float
    ) -> None:
        """Leave the attempt to a sweep in `seconds`, and say what it waits for."""
        with self._database.begin() as tx:
            launches.postpone(
                tx,
                ref,
                launch,
                blocked_on=wait,
                detail=why,
                # Jitter on top: who waits for the same thing should not come back all at once.
                delay_s=seconds * (1 + self._rng() / 4),
                stale_s=self._stale_s,
                actor=ACTOR,
            )

    def leave(self, ref: AttemptRef, launch: Launch) -> None:
        """Leave the attempt to whoever has a token first."""
        with self._database.begin() as tx:
            launches.release(tx, ref, launch, delay_s=0, stale_s=self._stale_s)

    def write_down(self, ref: AttemptRef, instance: Instance) -> None:
        """EC2 gave the attempt this instance."""
        with self._database.begin() as tx:
            in_time = attempts.launched(tx, ref, instance.id, actor=ACTOR)
        if not in_time:
            STALE.labels("launched").inc()
        self._log.info("launched", in_time=in_time, **log_context(ref, instance.id))

    def launched_earlier(self, ref: AttemptRef, launch: Launch) -> bool:
        """Before a refusal of a repeated call is believed: look for what an earlier one launched.

        EC2's answer to the repeated token should have said so; but it checks quotas, parameters and
        rights too, in an order that it does not promise.
        """
        if launch.calls < 2:
            return False
        try:
            alive = [one for one in self._cloud.find(ref) if not one.gone]
        except AtemporalError as error:
            self.wait(ref, launch, BlockedReason.ANSWER, said(error), REPEAT_S)
            return True
        if alive:
            self.write_down(ref, alive[0])
        return bool(alive)

    def adopt(self, ref: AttemptRef, error: AtemporalError) -> None:
        """The token has been used: find what it launched. The reaper judges what became of it."""
        found = sorted(self._cloud.find(ref), key=lambda instance: instance.gone)
        if found:
            self.write_down(ref, found[0])
        elif isinstance(error, TokenSpent):
            with self._database.begin() as tx:
                attempts.end(tx, ref, Reason.INSTANCE_LOST, actor=ACTOR, detail=str(error))
            ENDED.labels(Reason.INSTANCE_LOST).inc()

    def refuse(self, ref: AttemptRef, why: str) -> None:
        """No instance will ever come of it: end the attempt."""
        with self._database.begin() as tx:
            attempts.end(tx, ref, Reason.LAUNCH_REFUSED, actor=ACTOR, detail=why)
        ENDED.labels(Reason.LAUNCH_REFUSED).inc()
        self._log.error("launch refused", why=why, **log_context(ref))


def said(error: AtemporalError) -> str:
    """EC2's part of the message: whose call it was would mislead the other attempts that wait."""
    doing, _, said = str(error).partition(": ")
    return said or doing
