"""Replies to whoever asked by a message.

Promise: a reply follows the acknowledgement, so nothing that is done depends on it. Failure: one that
can not be sent is in the log; whoever hears nothing asks again, with the same key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from atemporal.broker import Link, Outgoing
from atemporal.errors import Unavailable, Unknown

# As long as a batch of replies may take, one by one: the next messages wait behind them.
REPLIES_S = 10.0


class Replies:
    """Sends replies over a loop's link."""

    def __init__(self, link: Link, log: Any, *, clock: Callable[[], float]) -> None:
        """Take the connection, and the loop's logger; `clock` gives seconds."""
        self._link = link
        self._log = log
        self._clock = clock

    def send(self, replies: Sequence[Outgoing]) -> None:
        """Send the replies together; if the link breaks over them, each alone.

        A broker can close the connection for one `reply_to`.
        """
        try:
            self._publish(replies)
        except (Unavailable, Unknown) as error:
            self._log.warning("replies not sent together", error=str(error))
            until = self._clock() + REPLIES_S
            for reply in replies:
                if self._clock() >= until:
                    self._log.warning("the other replies are given up", first=reply.routing_key)
                    return
                try:
                    self._publish([reply])
                except Unavailable:
                    return
                except Unknown as lost:
                    self._log.warning("reply not sent", to=reply.routing_key, error=str(lost))

    def _publish(self, replies: Sequence[Outgoing]) -> None:
        for reply, why in self._link.publish(replies):
            self._log.warning("reply not delivered", to=reply.routing_key, error=why)
