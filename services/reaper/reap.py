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

BATCH = 100


class ReapLoop:
    """Does what messages ask for."""

    name = "reap"

    def __init__(self, reaper: Reaper, link: Link) -> None:
        """Take the steps and the connection; it is not open yet."""
        self._reaper = reaper
        self._inbox = Inbox(link, REAP, ping=reaper.ping)

    def tick(self) -> float:
        """Take one batch of notifications: end what has ended first, then write down addresses."""
        with self._inbox.tick():
            self._tick()
        return 0.0

    def reset(self) -> None:
        """Drop the connection: the batch in hand comes again."""
        self._inbox.reset()

    def _tick(self) -> None:
        running: list[AttemptRef] = []
        ended: list[AttemptRef] = []
        for delivery in self._inbox.take(BATCH):
            try:
                message = decode(REAP, delivery.body)
            except Invalid as error:
                self._inbox.dead_letter(delivery, str(error))
                continue
            match message:
                case InstanceRunning():
                    running.append(message.ref)
                case InstanceExited() | JobCancel():
                    ended.append(message.ref)
                case _:
                    assert_never(message)
        if ended:
            self._reaper.end_instances_of(ended)
        if running:
            self._reaper.note_addresses(running)
        self._inbox.done()
