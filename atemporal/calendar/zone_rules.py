"""The zones, their rules, and the moments at which their clocks change.

Promise: the rules are those of the `tzdata` package that is installed beside this one, and no others.
Mechanism: Python's `ZoneInfo(name)` prefers the machine's files, or those that PYTHONTZPATH names, which
may be years older; so each zone is read from the package's own file, once. Failure: a name that the
package does not list is refused with names that are near it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from zoneinfo import ZoneInfo

import tzdata

from atemporal.errors import Invalid

EXAMPLES = "write a name of the IANA list such as Europe/Berlin, or UTC"
_SECOND = timedelta(seconds=1)
# No zone has ever changed its clock twice within six days (tests/unit/test_calendar_zones.py).
_STRIDE = timedelta(days=1)
_LONGEST_NAME = 64


def rules_version() -> str:
    """The version of the zone rules: that of the `tzdata` package, such as `2026.1`."""
    return str(tzdata.__version__)


@cache
def zone_names() -> frozenset[str]:
    """The names of all zones, links included."""
    return frozenset(files("tzdata").joinpath("zones").read_text("utf-8").split())


def zone(name: str) -> ZoneInfo:
    """The zone of that name.

    Raises:
        Invalid: `zone` is no name of the package's list.
    """
    if name not in zone_names():
        raise Invalid({"zone": _unknown(name)})
    return _load(name)


def local(where: ZoneInfo, instant: datetime) -> datetime:
    """What the zone's clock shows at the instant, without the zone."""
    return instant.astimezone(where).replace(tzinfo=None, fold=0)


def first_shown(where: ZoneInfo, wall: datetime) -> datetime:
    """The first instant, in UTC, at which the zone's clock shows `wall` or jumps over it.

    `wall` has no zone and whole seconds.
    """
    # Of a time that comes twice this is the first, of one that is left out it is past the gap.
    instant = wall.replace(tzinfo=where, fold=0).astimezone(UTC)
    if local(where, instant) == wall:
        return instant
    before = wall.replace(tzinfo=where, fold=1).astimezone(UTC)
    return _first(before, instant, lambda at: local(where, at) >= wall)


def first_change(where: ZoneInfo, after: datetime, until: datetime) -> datetime | None:
    """The first instant after `after`, and not after `until`, at which the zone's offset is another."""
    at = after.astimezone(UTC).replace(microsecond=0)
    offset = at.astimezone(where).utcoffset()
    while at < until:
        then = until if until - at <= _STRIDE else at + _STRIDE
        if then.astimezone(where).utcoffset() != offset:
            return _first(at, then, lambda one: one.astimezone(where).utcoffset() != offset)
        at = then
    return None


def _first(low: datetime, high: datetime, reached: Callable[[datetime], bool]) -> datetime:
    """The first whole second in (low, high] of which `reached` is true; of `high` it is."""
    while high - low > _SECOND:
        middle = low + timedelta(seconds=(high - low) // _SECOND // 2)
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


@cache
def _load(name: str) -> ZoneInfo:
    with files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as data:
        return ZoneInfo.from_file(data, key=name)


def _unknown(name: str) -> str:
    if not name:
        return f"is empty; {EXAMPLES}"
    if len(name) > _LONGEST_NAME:
        return f"has {len(name)} characters, more than any zone; {EXAMPLES}"
    spelled = {one.rsplit("/", 1)[-1].lower(): one for one in sorted(zone_names())}
    spelled |= {one.lower(): one for one in zone_names()}
    wanted = name.lower().replace(" ", "_")
    near = dict.fromkeys(
        spelled[one] for one in difflib.get_close_matches(wanted, spelled, cutoff=0.7)
    )
    hint = f"did you mean {' or '.join(near)}?" if near else EXAMPLES
    return f"{name!r} is no zone of tzdata {rules_version()}; {hint}"
