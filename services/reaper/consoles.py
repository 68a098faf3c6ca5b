"""What machines left on their consoles, read within a sweep's time.

Promise: reading consoles holds up a sweep for about `SWEEP_S` seconds and one call, however many
machines ended and however slow EC2 is. Mechanism: after that time, and at the first sign that EC2 has
no time for us, the rest is left to the next sweep; whose reading failed comes last there, so that one
bad console does not hide the others for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from atemporal.cloud import Cloud, Unauthorized
from atemporal.console import exit_record
from atemporal.errors import AtemporalError, Refused
from atemporal.model import Attempt, AttemptRef, ExitRecord
from atemporal.telemetry import log_context, logger

SWEEP_S = 30.0


class Consoles:
    """The consoles that one sweep reads."""

    def __init__(
        self, cloud: Cloud, *, failed: set[AttemptRef], clock: Callable[[], float]
    ) -> None:
        """Begin the time, by a clock in seconds. `failed`, kept from sweep to sweep, come last."""
        self._cloud = cloud
        self._failed = failed
        self._clock = clock
        self._until = clock() + SWEEP_S
        self._log = logger("reaper")

    def in_time(self, refs: Iterable[AttemptRef]) -> Iterator[AttemptRef]:
        """Go through the attempts while there is time; say how many are left over."""
        waiting = sorted(refs, key=self._failed.__contains__)
        for done, ref in enumerate(waiting):
            if self._clock() >= self._until:
                left = len(waiting) - done
                self._log.warning("consoles left to the next sweep", attempts=left)
                return
            yield ref

    def read(self, attempt: Attempt) -> ExitRecord | None:
        """Return what the attempt's machine said of its end; None when it said nothing readable.

        Raises:
            Retry, Unknown: EC2 can not be asked now; the time is over with that.
        """
        if attempt.instance_id is None:
            return None
        self._failed.discard(attempt.ref)
        try:
            console = self._cloud.console(attempt.instance_id)
        except (Refused, Unauthorized) as error:
            # The listing was allowed, so it is this one right that is missing: waiting for it would
            # keep a dead attempt open for ever.
            where = log_context(attempt.ref, attempt.instance_id)
            self._log.warning("no console to be read", error=str(error), **where)
            return None
        except AtemporalError:
            self._failed.add(attempt.ref)
            self._until = self._clock()
            raise
        return exit_record(console, attempt.ref.id)
