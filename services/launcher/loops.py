"""The launcher's two loops: one does what messages name, one what the tables show to be left.

Promise: no more is taken up than EC2 may be asked for now: the rest stays queued, in the broker and
in the tables, for whoever has room. No loop waits longer than about a second, and while its calls
are under way the broker's connection is kept alive.
Failure: while EC2 refuses this process the message loop drops its connection, so that its messages
go to launchers that are let in, and fails each turn: `/readyz` says 503. The sweep goes on, and sends
the probe.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import assert_never

from atemporal.broker import Link
from atemporal.errors import Invalid, Unavailable
from atemporal.inbox import Inbox
from atemporal.messages import LAUNCH, JobDue, decode
from services.launcher.launcher import Begun, Launcher

CALLS_AT_ONCE = 8
_PAUSE_S = (0.05, 1.0)


class _Calls:
    """RunInstances calls side by side; the waiting thread keeps its broker connection alive."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._pool = ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="run-instances")
        self._pending: set[Future[None]] = set()

    def make(self, begun: Iterable[Begun], link: Link | None = None) -> None:
        self._pending = {
            self._pool.submit(self._launcher.call, attempt, spec) for attempt, spec in begun
        }
        failures = []
        while self._pending:
            done, self._pending = wait(self._pending, timeout=5)
            failures += [error for error in (one.exception() for one in done) if error]
            if link is not None:
                link.heartbeat()
        if failures:
            raise failures[0]

    def cancel(self) -> None:
        """Leave what is not under way yet to the sweep."""
        for call in self._pending:
            call.cancel()
        self._pending = set()


class LaunchLoop:
    """Launches what messages name."""

    name = "launch"

    def __init__(self, launcher: Launcher, link: Link) -> None:
        """Take the steps and the connection; it is not open yet."""
        self._launcher = launcher
        self._link = link
        self._inbox = Inbox(link, LAUNCH, ping=launcher.ping)
        self._calls = _Calls(launcher)

    def tick(self) -> float:
        """Take as many due jobs as may be asked for now; those that wait already come first.

        Raises:
            Unavailable: EC2 refuses this process, or the broker is away.
        """
        launcher = self._launcher
        if not launcher.circuit.closed:
            raise Unavailable(f"launches wait: {launcher.circuit.why}")
        with self._inbox.tick():
            return self._tick()

    def _tick(self) -> float:
        launcher = self._launcher
        if launcher.behind:
            self._calls.make(launcher.unfinished(), self._link)
        room = launcher.room()
        if room == 0 or launcher.behind:
            return min(max(launcher.gate_s(), _PAUSE_S[0]), _PAUSE_S[1])
        refs = []
        for delivery in self._inbox.take(room):
            try:
                message = decode(LAUNCH, delivery.body)
            except Invalid as error:
                self._inbox.dead_letter(delivery, str(error))
                continue
            match message:
                case JobDue():
                    refs.append(message.ref)
                case _:
                    assert_never(message)
        begun = launcher.begin(refs)
        # The intents are committed: from here the sweep would finish them without the messages.
        self._inbox.done()
        self._calls.make(begun, self._link)
        return 0.0

    def reset(self) -> None:
        """Drop the connection: what is not begun comes again."""
        self._calls.cancel()
        self._inbox.reset()


class SweepLoop:
    """Launches what the tables show to be left over."""

    name = "launch-sweep"

    def __init__(self, launcher: Launcher, *, interval_s: float) -> None:
        """Take the steps."""
        self._launcher = launcher
        self._interval_s = interval_s
        self._calls = _Calls(launcher)

    def tick(self) -> float:
        """Look once; look again when the first of those that wait may be asked for."""
        self._calls.make(self._launcher.unfinished())
        return max(_PAUSE_S[0], self._launcher.rest_s(self._interval_s))

    def reset(self) -> None:
        """Leave the calls that are not under way yet to the next look."""
        self._calls.cancel()
