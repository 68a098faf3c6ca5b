"""The message loop: does at once what messages ask for.

Promise: a message names an attempt and nothing is believed of it; what it asks for is done from the
records and from EC2's answer. What it does not get done, the sweep does.
"""

from __future__ import annotations

from typing import assert_never

from atemporal.broker import Link
from atemporal.errors import Invalid
from atemporal.inbox import Inbox
from atemporal.messages import REAP, InstanceExited, InstanceRunning, JobCancel, decode
from atemporal.model import AttemptRef
from services.reaper.reaper import Reaper

BATCH = 500
LINGER_S = (0.05, 0.4)
"""How long more exits are waited for: those of one moment are one call. As long as there is no token for
a call, the time goes into waiting for more of them; up to the second."""


class ReapLoop:
    """Does what messages ask for."""

    name = "reap"

    def __init__(self, reaper: Reaper, link: Link) -> None:
        """Take the steps and the connection; it is not open yet."""
        self._reaper = reaper
        self._inbox = Inbox(link, REAP, ping=reaper.ping)

    def tick(self) -> float:
        """Take one batch of notifications, and end what has ended."""
        with self._inbox.tick():
            self._tick()
        return 0.0

    def reset(self) -> None:
        """Drop the connection: the batch in hand comes again."""
        self._inbox.reset()

    def _tick(self) -> None:
        ended: list[AttemptRef] = []
        linger_s = min(max(self._reaper.terminations_ready_in(), LINGER_S[0]), LINGER_S[1])
        for delivery in self._inbox.take(BATCH, linger_s=linger_s):
            try:
                message = decode(REAP, delivery.body)
            except Invalid as error:
                self._inbox.dead_letter(delivery, error.fields)
                continue
            match message:
                case InstanceRunning():
                    # Its address is in the sweep's listing: a call for each machine would be too many.
                    continue
                case InstanceExited() | JobCancel():
                    ended.append(message.ref)
                case _:
                    assert_never(message)
        if ended:
            self._reaper.end_instances_of(ended)
        self._inbox.done()
