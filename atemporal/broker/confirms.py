"""The bookkeeping of one confirm channel: which messages the broker has not answered yet.

Mechanism: the broker counts the messages of a channel, and confirms or refuses them by number. What no
queue takes it returns first, and confirms then.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any

from kombu import Connection
from kombu.exceptions import KombuError

from atemporal.broker.envelope import Outgoing

_NACKED = "a queue refused a message (it may be full)"


class Confirms:
    """Which delivery tags are still open, and what was refused."""

    def __init__(self, channel: Any) -> None:
        """Listen on a channel that confirms."""
        self._last_tag = 0
        self._open: dict[int, Outgoing] = {}
        self._returned: dict[str, str] = {}
        self._refused: list[tuple[Outgoing, str]] = []
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        channel.events["basic_return"].add(self._on_return)

    def sent(self, message: Outgoing) -> None:
        """Note that a message has been sent."""
        self._last_tag += 1
        self._open[self._last_tag] = message

    def wait(self, connection: Connection, timeout_s: float) -> Sequence[tuple[Outgoing, str]]:
        """Return once all is answered, with those refused that nobody requires, and why.

        Raises:
            TimeoutError: some has no answer within `timeout_s` seconds.
            KombuError: a message was refused that is required.
        """
        deadline = monotonic() + timeout_s
        while self._open:
            remaining = deadline - monotonic()
            if remaining <= 0:
                raise TimeoutError(f"{len(self._open)} messages unconfirmed after {timeout_s} s")
            connection.drain_events(timeout=remaining)
        refused, self._refused = self._refused, []
        self._returned.clear()
        required = [why for message, why in refused if message.required]
        if required:
            raise KombuError("; ".join(required[:3]))
        return refused

    def _settle(self, tag: int, multiple: bool, nacked: str | None) -> None:
        tags = [one for one in self._open if one <= tag] if multiple else [tag]
        for one in tags:
            message = self._open.pop(one, None)
            if message is None:
                continue
            why = nacked or self._returned.get(message.message_id)
            if why is not None:
                self._refused.append((message, why))

    def _on_ack(self, tag: int, multiple: bool) -> None:
        self._settle(tag, multiple, None)

    def _on_nack(self, tag: int, multiple: bool = False) -> None:
        self._settle(tag, multiple, _NACKED)

    def _on_return(self, _error: object, exchange: str, routing_key: str, message: Any) -> None:
        why = f"no queue takes {routing_key!r} from exchange {exchange!r}"
        hint = "; run `atemporal broker declare`" if exchange else ""
        self._returned[message.properties.get("message_id", "")] = why + hint
