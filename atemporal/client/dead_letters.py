"""The calls about dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast
from urllib.parse import quote, urlencode

from atemporal.client.shapes import DeadLetterDetail, DeadLetterPage
from atemporal.client.transport import Transport, object_of
from atemporal.errors import NotFound


class DeadLetterCalls(Transport):
    """List, show, send again, drop."""

    def dead_letters(
        self,
        *,
        states: Sequence[str] = (),
        reasons: Sequence[str] = (),
        queues: Sequence[str] = (),
        kinds: Sequence[str] = (),
        older_than_s: float | None = None,
        newer_than_s: float | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> DeadLetterPage:
        """One page of dead letters, the newest first; of each filter one value has to fit.

        Without `states` those that nobody has decided about, with `any` all. `kinds` are the messages'
        routing keys. Ages are those of the letters.

        Raises:
            Invalid: there is no such state or reason.
        """
        query: list[tuple[str, str]] = []
        for name, values in (
            *(("state", states), ("reason", reasons), ("queue", queues), ("kind", kinds)),
        ):
            query += [(name, one) for one in values]
        for name, value in (
            *(("older_than_s", older_than_s), ("newer_than_s", newer_than_s)),
            *(("limit", limit), ("after", after)),
        ):
            query += [] if value is None else [(name, str(value))]
        return cast(DeadLetterPage, self.get(f"/dead-letters?{urlencode(query)}"))

    def dead_letter(self, letter_id: str) -> DeadLetterDetail:
        """The letter with this id, or whose id alone begins or ends so.

        Raises:
            NotFound: there is none, or more than one; the message says which.
        """
        return cast(DeadLetterDetail, self.get(_path(letter_id)))

    def replay_dead_letter(self, letter_id: str) -> DeadLetterDetail:
        """Have the letter with this whole id sent again, to the queue its message came from.

        Raises:
            NotFound, Conflict: there is none; it was dropped, or can not be sent again.
            Unknown: nobody knows whether it arrived; asking again changes nothing more.
        """
        return self._decide("POST", f"{_path(letter_id)}/replay")

    def drop_dead_letter(self, letter_id: str) -> DeadLetterDetail:
        """Give up the letter with this whole id.

        Raises:
            NotFound, Conflict: there is none; it was sent again, or is to be.
            Unknown: nobody knows whether it arrived; dropping again changes nothing more.
        """
        return self._decide("DELETE", _path(letter_id))

    def _decide(self, method: str, path: str) -> DeadLetterDetail:
        return cast(DeadLetterDetail, object_of(self.call(method, path, b"")[1]))


def _path(letter_id: str) -> str:
    if not letter_id.strip():
        raise NotFound("the dead letter's id is empty")
    return f"/dead-letters/{quote(letter_id.strip(), safe='')}"
