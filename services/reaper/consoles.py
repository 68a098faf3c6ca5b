"""What machines left on their consoles, read within a sweep's time.

Promise: reading consoles holds up a sweep for about `SWEEP_S` seconds and one call, however many
machines ended and however slow EC2 is. Mechanism: after that time, and at the first sign that EC2 has
no time for us, the rest is left to the next sweep; those that could not be read come last there, so
that one bad console does not hide the others for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from threading import Lock

from atemporal.cloud import Cloud, Unauthorized
from atemporal.console import exit_record
from atemporal.errors import AtemporalError, Refused
from atemporal.model import Attempt, AttemptRef, ExitRecord
from atemporal.telemetry import log_context, logger

SWEEP_S = 30.0


class Unread:
    """The attempts whose console could not be read at the last try; shared by threads."""

    def __init__(self) -> None:
        """Begin with none."""
        self._lock = Lock()
        self._refs: frozenset[AttemptRef] = frozenset()

    def __contains__(self, ref: AttemptRef) -> bool:
        """Whether the attempt is among them."""
        return ref in self._refs

    def keep_only(self, refs: Collection[AttemptRef]) -> None:
        """Forget all others."""
        with self._lock:
            self._refs &= frozenset(refs)

    def add(self, ref: AttemptRef) -> None:
        """Remember one."""
        with self._lock:
            self._refs |= {ref}

    def discard(self, ref: AttemptRef) -> None:
        """Forget one."""
        with self._lock:
            self._refs -= {ref}


class Consoles:
    """The consoles that one sweep reads."""

    def __init__(self, cloud: Cloud, *, unread: Unread, clock: Callable[[], float]) -> None:
        """Begin the time, by a clock in seconds. `unread`, kept from sweep to sweep, come last."""
        self._cloud = cloud
        self._unread = unread
        self._clock = clock
        self._until = clock() + SWEEP_S
        self._log = logger("reaper")

    def in_time(self, refs: Iterable[AttemptRef]) -> Iterator[AttemptRef]:
        """Go through the attempts while there is time; log how many are left over."""
        waiting = sorted(refs, key=self._unread.__contains__)
        for done, ref in enumerate(waiting):
            if self._clock() >= self._until:
                left = len(waiting) - done
                self._log.warning("consoles left to the next sweep", attempts=left)
                return
            yield ref

    def read(self, attempt: Attempt) -> ExitRecord | None:
        """Return the record that the attempt's machine left of its end; None when there is none.

        Raises:
            Retry, Unknown: EC2 can not be asked now; the time is over with that.
        """
        if attempt.instance_id is None:
            return None
        self._unread.discard(attempt.ref)
        try:
            console = self._cloud.console(attempt.instance_id)
        except (Refused, Unauthorized) as error:
            # The listing was allowed, so it is this one right that is missing: waiting for it would
            # keep a dead attempt open for ever.
            where = log_context(attempt.ref, attempt.instance_id)
            self._log.warning("no console to be read", error=str(error), **where)
            return None
        except AtemporalError:
            self._unread.add(attempt.ref)
            self._until = self._clock()
            raise
        return exit_record(console, attempt.ref.id)
