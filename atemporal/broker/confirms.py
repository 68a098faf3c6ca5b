"""The bookkeeping of one confirm channel: which messages the broker has not answered yet.

Mechanism: the broker counts the messages of a channel, and confirms or refuses them by number, singly
or all up to one. What no queue takes it returns first, and confirms then. Numbers are settled from the
front mostly, so the first one that may be open is remembered and no answer looks at all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kombu.exceptions import KombuError

from atemporal.broker.envelope import Outgoing

_NACKED = "a queue refused a message (it may be full)"


@dataclass(frozen=True)
class Sent:
    """Messages that the broker has to answer: all of a channel up to and with the number `last`."""

    confirms: Confirms | None
    last: int = 0


class Confirms:
    """Which delivery tags are still open, and what was refused."""

    def __init__(self, channel: Any) -> None:
        """Listen on a channel that confirms."""
        self._last = 0
        self._first = 1
        self._open: dict[int, Outgoing] = {}
        self._returned: dict[str, str] = {}
        self._refused: list[tuple[Outgoing, str]] = []
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        channel.events["basic_return"].add(self._on_return)

    def sent(self, messages: Sequence[Outgoing]) -> Sent:
        """Note what has been sent."""
        for message in messages:
            self._last += 1
            self._open[self._last] = message
        return Sent(self, self._last)

    def answered(self, tag: int) -> bool:
        """Whether all up to and with this number are answered."""
        return self._first > tag

    def open_until(self, tag: int) -> int:
        """How many up to and with this number are not answered."""
        return sum(1 for one in range(self._first, tag + 1) if one in self._open)

    def take_refused(self) -> Sequence[tuple[Outgoing, str]]:
        """Those refused since the last time that nobody requires, and why.

        Raises:
            KombuError: a message was refused that is required.
        """
        if not self._open:
            self._returned.clear()
        if not self._refused:
            return ()
        refused, self._refused = self._refused, []
        required = [why for message, why in refused if message.required]
        if required:
            raise KombuError("; ".join(required[:3]))
        return refused

    def _settle(self, first: int, last: int, nacked: str | None) -> None:
        for tag in range(first, last + 1):
            message = self._open.pop(tag, None)
            if message is not None and (nacked or self._returned):
                why = nacked or self._returned.get(message.message_id)
                if why is not None:
                    self._refused.append((message, why))
        while self._first <= self._last and self._first not in self._open:
            self._first += 1

    def _on_ack(self, tag: int, multiple: bool) -> None:
        self._settle(self._first if multiple else tag, tag, None)

    def _on_nack(self, tag: int, multiple: bool = False) -> None:
        self._settle(self._first if multiple else tag, tag, _NACKED)

    def _on_return(self, _error: object, exchange: str, routing_key: str, message: Any) -> None:
        why = f"no queue takes {routing_key!r} from exchange {exchange!r}"
        hint = "; run `atemporal broker declare`" if exchange else ""
        self._returned[message.properties.get("message_id", "")] = why + hint
