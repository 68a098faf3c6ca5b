"""What machines left on their consoles, read within a sweep's time and with few calls.

Promise: reading consoles holds up a sweep for about `SWEEP_S` seconds and one call, however many
machines ended and however slow EC2 is. A console that says nothing yet is looked at again after a pause
that grows from `PAUSE_S`' first to its second, and once more before its attempt is given up.
Mechanism: after a sweep's time, and at the first sign that EC2 has no time for us, the rest is left to
the next sweep; those that could not be read come last there, so that one bad console does not hide the
others for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from threading import Lock

from atemporal.cloud import Cloud, Unauthorized
from atemporal.console import exit_record
from atemporal.errors import AtemporalError, Refused
from atemporal.model import Attempt, AttemptRef, ExitRecord
from atemporal.telemetry import log_context, logger

SWEEP_S = 30.0
PAUSE_S = (10.0, 60.0)
"""The first and the longest pause between two looks; the pauses double."""
KEPT_S = 3600.0
"""So long after it was due a look is forgotten: somebody else has ended the attempt."""


@dataclass(frozen=True)
class Look:
    """The last look at a console: when the next is due, and after which pause; or that it failed."""

    next_at: float
    pause_s: float
    failed: bool = False


class Looks:
    """The last look at each console that said nothing; shared by threads, kept from sweep to sweep."""

    def __init__(self) -> None:
        """Begin with none."""
        self._lock = Lock()
        self._of: dict[AttemptRef, Look] = {}

    def __len__(self) -> int:
        """At how many it remembers to have looked."""
        return len(self._of)

    def of(self, ref: AttemptRef) -> Look | None:
        """The last look at an attempt's console."""
        return self._of.get(ref)

    def keep_only(self, refs: Collection[AttemptRef]) -> None:
        """Forget all others."""
        with self._lock:
            self._of = {ref: seen for ref, seen in self._of.items() if ref in refs}

    def looked(self, ref: AttemptRef, now: float, *, failed: bool = False) -> None:
        """Remember a look; one that failed is due again at once."""
        with self._lock:
            last = self._of.get(ref)
            self._of = {r: seen for r, seen in self._of.items() if now - seen.next_at < KEPT_S}
            if failed:
                pause_s = last.pause_s if last else 0.0
                self._of[ref] = Look(now, pause_s, failed=True)
            else:
                longer_s = last.pause_s * 2 if last else 0.0
                pause_s = min(max(longer_s, PAUSE_S[0]), PAUSE_S[1])
                self._of[ref] = Look(now + pause_s, pause_s)


class Consoles:
    """The consoles that one sweep reads."""

    def __init__(self, cloud: Cloud, *, looks: Looks, clock: Callable[[], float]) -> None:
        """Begin the time, by a clock in seconds. `looks` is what the sweeps before have seen."""
        self._cloud = cloud
        self._looks = looks
        self._clock = clock
        self._until = clock() + SWEEP_S
        self._log = logger("reaper")

    def in_time(
        self, refs: Iterable[AttemptRef], *, last: Collection[AttemptRef] = ()
    ) -> Iterator[AttemptRef]:
        """Go through the attempts that are due, while there is time; log how many are left over.

        The look at those in `last` is the last one, and due in any case.
        """
        now = self._clock()
        waiting = sorted(
            (ref for ref in refs if ref in last or self._is_due(ref, now)), key=self._failed
        )
        for done, ref in enumerate(waiting):
            if self._clock() >= self._until:
                left = len(waiting) - done
                self._log.warning("consoles left to the next sweep", attempts=left)
                return
            yield ref

    def read(self, attempt: Attempt, *, last: bool = False) -> ExitRecord | None:
        """Return the record that the attempt's machine left of its end; None when there is none.

        The live console is asked at the first look and at the `last` one: what a dead machine wrote
        comes to the copy that EC2 posts.

        Raises:
            Retry, Unknown: EC2 can not be asked now; the time is over with that.
        """
        if attempt.instance_id is None:
            return None
        ref = attempt.ref
        seen = self._looks.of(ref)
        live = last or seen is None or seen.failed
        try:
            console = self._cloud.console(attempt.instance_id, live=live)
        except (Refused, Unauthorized) as error:
            # The listing was allowed, so it is this one right that is missing: waiting for it would
            # keep a dead attempt open for ever.
            where = log_context(ref, attempt.instance_id)
            self._log.warning("no console to be read", error=str(error), **where)
            console = ""
        except AtemporalError:
            self._looks.looked(ref, self._clock(), failed=True)
            self._until = self._clock()
            raise
        self._looks.looked(ref, self._clock())
        return exit_record(console, ref.id)

    def _is_due(self, ref: AttemptRef, now: float) -> bool:
        seen = self._looks.of(ref)
        return seen is None or seen.next_at <= now

    def _failed(self, ref: AttemptRef) -> bool:
        seen = self._looks.of(ref)
        return seen is not None and seen.failed
