"""The message loop: launches what messages name.

Promise: no more is taken up than EC2 may be asked for now. The rest stays queued, in the broker and in
the tables, for whoever has room. The loop waits for about a second at most, and while its calls are
under way the broker's connection is kept alive.
Failure: while EC2 refuses this process the loop drops its connection, so that its messages go to
launchers that may call, and fails each tick: `/readyz` says 503. The sweep goes on, and sends the probe.
"""

from __future__ import annotations

from typing import assert_never

from atemporal.broker import Link
from atemporal.errors import Invalid
from atemporal.inbox import Inbox
from atemporal.messages import LAUNCH, JobDue, decode
from services.launcher.calls import Calls
from services.launcher.launcher import Launcher

LINGER_S = 0.05
"""What comes within this of a first message is launched with it: jobs of one moment are one call."""

_PAUSE_S = (0.05, 1.0)


class LaunchLoop:
    """Launches what messages name."""

    name = "launch"

    def __init__(self, launcher: Launcher, link: Link) -> None:
        """Take the steps and the connection; it is not open yet."""
        self._launcher = launcher
        self._link = link
        self._inbox = Inbox(link, LAUNCH, ping=launcher.ping)
        self._calls = Calls(launcher)

    def tick(self) -> float:
        """Take as many due jobs as may be asked for now; those that wait already come first.

        Raises:
            Unavailable: EC2 refuses this process, or the broker is away.
        """
        self._launcher.check()
        with self._inbox.tick():
            return self._tick()

    def _tick(self) -> float:
        launcher = self._launcher
        if launcher.behind:
            self._calls.make(launcher.unfinished(), self._link)
        room = launcher.room()
        if room == 0 or launcher.behind:
            return min(max(launcher.ready_in(), _PAUSE_S[0]), _PAUSE_S[1])
        refs = []
        for delivery in self._inbox.take(room, linger_s=LINGER_S):
            try:
                message = decode(LAUNCH, delivery.body)
            except Invalid as error:
                self._inbox.dead_letter(delivery, error.fields)
                continue
            match message:
                case JobDue():
                    refs.append(message.ref)
                case _:
                    assert_never(message)
        *parts, last = launcher.parts(refs) or [[]]
        # Environments may be large: one part's machines are asked for before the next is read.
        for part in parts:
            self._calls.make(launcher.begin(part), self._link)
        begun = launcher.begin(last)
        # The intents are committed: from here the sweep would finish them without the messages.
        self._inbox.done()
        self._calls.make(begun, self._link)
        return 0.0

    def reset(self) -> None:
        """Drop the connection: what is not begun comes again."""
        self._calls.cancel()
        self._inbox.reset()
