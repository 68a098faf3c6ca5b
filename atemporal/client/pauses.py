"""The calls of the API about the pause of the installation."""

from __future__ import annotations

import json
from typing import TypedDict, cast

from atemporal.client.transport import Transport, object_of


class Pause(TypedDict):
    """Whether the installation is paused, since when, by whom and why; attempts that are under way.

    `next_deadline` is when the wait of the first of these ends at the latest.
    """

    paused: bool
    since: str | None
    by: str | None
    reason: str | None
    under_way: int
    by_state: dict[str, int]
    next_deadline: str | None


class PauseBegun(Pause):
    """A pause that was begun, and how many dispatched jobs are scheduled again."""

    put_back: int


class PauseCalls(Transport):
    """The calls about the pause; to change it wants the scope `admin`."""

    def pause(self) -> Pause:
        """Whether nothing new is dispatched, and how many attempts are under way."""
        return cast(Pause, self.get("/pause"))

    def begin_pause(self, reason: str = "") -> PauseBegun:
        """Let nothing new be dispatched.

        Raises:
            Conflict: it is paused already.
            Invalid: the reason is too long, or no line of text.
            Unknown: nobody knows whether it arrived.
        """
        body = json.dumps({"reason": reason}).encode()
        return cast(PauseBegun, object_of(self.call("PUT", "/pause", body)[1]))

    def end_pause(self) -> Pause:
        """Let what is due be dispatched again.

        Raises:
            Conflict: it is not paused.
            Unknown: nobody knows whether it arrived.
        """
        return cast(Pause, object_of(self.call("DELETE", "/pause")[1]))
