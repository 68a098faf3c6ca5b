"""A machine's clock, and whether it or the database's decides when the container starts.

Promise: agent and API decide by the same rule, so a start is measured by the clock it was made by.
The machine's own clock counts when its system says that it is synchronised and it differs from the
database's by `AGREE_MS` at most; else the database's does (docs/adr/0035).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

AGREE_MS = 1_000
"""More than this and one of the two clocks is wrong: NTP keeps hosts within milliseconds."""


class ClockState(StrEnum):
    """What is known of a machine's clock."""

    AGREES = "agrees"
    DIFFERS = "differs"
    UNSYNCHRONISED = "unsynchronised"
    UNKNOWN = "unknown"


class MachineClock(BaseModel):
    """What a machine says of its clock.

    `synchronised` is None where its system does not say. `offset_ms` is how far it is ahead of the
    database's clock by the last answer that was quick enough to tell, in milliseconds; None before
    the first.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    synchronised: bool | None = None
    offset_ms: Annotated[int, Field(ge=-(10**15), le=10**15)] | None = None

    @property
    def state(self) -> ClockState:
        """Which of the cases it is."""
        if not self.synchronised:
            unknown = self.synchronised is None
            return ClockState.UNKNOWN if unknown else ClockState.UNSYNCHRONISED
        if self.offset_ms is None:
            return ClockState.UNKNOWN
        agrees = abs(self.offset_ms) <= AGREE_MS
        return ClockState.AGREES if agrees else ClockState.DIFFERS

    def true(self, instant: datetime) -> datetime:
        """An instant that was read off the machine's clock, by the clock that counts."""
        if self.state is ClockState.AGREES or self.offset_ms is None:
            return instant
        try:
            return instant - timedelta(milliseconds=self.offset_ms)
        except OverflowError:
            return instant
