"""A pause of the whole installation."""

from __future__ import annotations

from datetime import datetime

from atemporal.clock import format_utc
from atemporal.model.frozen import Frozen


class Pause(Frozen):
    """Since when nothing new is dispatched, by whose order and why; `reason` may be empty."""

    since: datetime
    by: str
    reason: str

    def __str__(self) -> str:
        why = f": {self.reason}" if self.reason else ""
        return f"the installation is paused since {format_utc(self.since)} by {self.by}{why}"
