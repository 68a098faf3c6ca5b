"""A cron line in a zone, and when it fires.

Promise: the package's. Mechanism: cronsim is asked on a clock without a zone, where every time exists
once; what it says that the clock must show is then looked for in real time, by the zone's rules.
Failure: bad input is refused; beyond the end of datetimes there is no fire.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from atemporal.calendar import zone_rules
from atemporal.calendar.cron_text import expression
from atemporal.errors import Invalid

_SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class CronLine:
    """When something recurs: a cron line, and the zone whose clock it is read on."""

    text: str
    zone: str
    _fields: str = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str, zone: str) -> CronLine:
        """Read a line of five fields, or an @name such as `@daily`, and the name of a zone.

        Raises:
            Invalid: `cron` or `zone`, or both, can not be read, or the line never fires; it says what to
                write instead.
        """
        text, zone = " ".join(text.split()), " ".join(zone.split())
        wrong: dict[str, str] = {}
        try:
            fields = expression(text)
        except Invalid as error:
            wrong |= error.fields
        try:
            zone_rules.zone(zone)
        except Invalid as error:
            wrong |= error.fields
        if wrong:
            raise Invalid(wrong)
        return cls(text, zone, fields)

    @property
    def _where(self) -> ZoneInfo:
        # By its name each time: a zone that was read from a file can not be copied to another process.
        return zone_rules.zone(self.zone)

    @property
    def fixed(self) -> bool:
        """Whether it names times of the day; otherwise it is a rhythm, which follows real time."""
        minute, hour, *_ = self._fields.split()
        return not (minute.startswith("*") or hour.startswith("*"))

    def next_after(self, instant: datetime) -> datetime | None:
        """The first fire after an aware instant, in UTC; None if there is none before the year 10000.

        Raises:
            ValueError: the instant has no zone.
        """
        if instant.utcoffset() is None:
            raise ValueError(f"{instant} has no zone; give an aware instant")
        try:
            return self._next_fixed(instant) if self.fixed else self._next_of_rhythm(instant)
        except (OverflowError, StopIteration):
            return None

    def local(self, instant: datetime) -> datetime:
        """The aware instant, as the zone's clock shows it."""
        return instant.astimezone(self._where)

    def _next_fixed(self, instant: datetime) -> datetime:
        # All that is earlier than what the clock shows now was reached before: it fired.
        wall = zone_rules.local(self._where, instant)
        while True:
            wall = self._shown_after(wall)
            fire = zone_rules.first_shown(self._where, wall)
            if fire > instant:
                return fire

    def _next_of_rhythm(self, instant: datetime) -> datetime:
        at = instant
        wall = self._shown_after(zone_rules.local(self._where, at))
        while True:
            offset = self.local(at).utcoffset() or timedelta()
            fire = (wall - offset).replace(tzinfo=UTC)
            change = zone_rules.first_change(self._where, at, fire)
            if change is None:
                return fire
            # From here on the clock shows something else; its first moment may be a fire itself.
            at = change
            wall = self._shown_after(zone_rules.local(self._where, at) - _SECOND)

    def _shown_after(self, wall: datetime) -> datetime:
        """What the clock next shows that the line names, on a clock that never changes."""
        return next(CronSim(self._fields, wall))
