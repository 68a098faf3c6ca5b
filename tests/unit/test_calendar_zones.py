"""Every zone, every change of its clock from 2020 to 2035: a line fires as the written rules say.

The other opinion is a walk over real time, minute by minute, made from the rules in `atemporal.calendar`
and from nothing else: it knows neither cronsim nor how a time of the wall clock is found in real time.
"""

from __future__ import annotations

import functools
import itertools
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atemporal.calendar import CronLine, zone_rules

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST, LAST = datetime(2020, 1, 1, tzinfo=UTC), datetime(2036, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DAY = 24 * 60

# Which minutes of the wall clock, counted since 1970, each line names.
Names = Callable[[int], bool]
FIXED: dict[str, Names] = {
    "30 2 * * *": lambda wall: wall % DAY == 2 * 60 + 30,
    "0 0 * * *": lambda wall: wall % DAY == 0,
}
RHYTHMS: dict[str, Names] = {
    "*/15 * * * *": lambda wall: wall % 15 == 0,
    "0 * * * *": lambda wall: wall % 60 == 0,
}
# A change reaches as far as the clock was moved; a fixed time may be a day away from its neighbour.
AROUND_FIXED, AROUND_RHYTHM = DAY + 3 * 60, 4 * 60
# Gaps and folds of half an hour, of two hours and of a day, at midnight, and some that follow the moon.
ODD = (
    *("Africa/Cairo", "Africa/Casablanca", "America/Havana", "America/Nuuk", "America/Santiago"),
    *("Antarctica/Troll", "Asia/Amman", "Asia/Beirut", "Asia/Gaza", "Atlantic/Azores"),
    *("Australia/Lord_Howe", "Europe/Dublin", "Pacific/Apia", "Pacific/Norfolk"),
)


class Change:
    """One change of a clock: its minute since 1970, and the offsets before and after it in minutes."""

    def __init__(self, at: datetime, before: int, after: int) -> None:
        self.minute, rest = divmod(at - EPOCH, MINUTE)
        assert not rest, f"{at}: a clock that changes within a minute needs a finer walk"
        self.before, self.after = before, after

    def wall(self, minute: int) -> int:
        """What the clock shows, in minutes since 1970."""
        return minute + (self.after if minute >= self.minute else self.before)


def walk(names: Names, clock: Change, reach: int, *, fixed: bool) -> Iterator[int]:
    """The minutes at which a line fires around the change, by walking all of them."""
    shown = clock.wall(clock.minute - reach - 1)
    for minute in range(clock.minute - reach, clock.minute + reach + 1):
        wall = clock.wall(minute)
        # A fixed line: what the clock reaches now for the first time, and what it jumps over.
        if any(names(one) for one in (range(shown + 1, wall + 1) if fixed else (wall,))):
            yield minute
        shown = max(shown, wall)


@functools.cache
def walked(text: str, minute: int, before: int, after: int) -> tuple[int, ...]:
    """What the walk says of one of the lines; many zones change their clocks together."""
    clock = Change(EPOCH + minute * MINUTE, before, after)
    if text in FIXED:
        return tuple(walk(FIXED[text], clock, AROUND_FIXED, fixed=True))
    return tuple(walk(RHYTHMS[text], clock, AROUND_RHYTHM, fixed=False))


def fired(line: CronLine, start: datetime, end: datetime) -> Iterator[int]:
    """The minutes at which the line fires, both ends included."""
    at = line.next_after(start - MINUTE)
    while at is not None and at <= end:
        minute, rest = divmod(at - EPOCH, MINUTE)
        assert not rest
        yield minute
        at = line.next_after(at)


def data_of(name: str) -> bytes:
    return files("tzdata").joinpath("zoneinfo", *name.split("/")).read_bytes()


def distinct() -> list[str]:
    """One name for each set of rules: links, and zones with the same data, are tried once."""
    seen: dict[bytes, str] = {}
    for name in sorted(zone_rules.zone_names()):
        seen.setdefault(data_of(name), name)
    return sorted(seen.values())


def changes(where: ZoneInfo) -> Iterator[Change]:
    """The changes of the years, by a look at every half day; if there are none, any minute."""
    half, at, none = timedelta(hours=12), FIRST, True
    before = _offset(where, at)
    while at < LAST:
        if (after := _offset(where, at + half)) != before:
            low, high = at, at + half
            while high - low > MINUTE:
                middle = low + (high - low) // MINUTE // 2 * MINUTE
                low, high = (low, middle) if _offset(where, middle) == after else (middle, high)
            yield Change(high, before, after)
            none = False
        before, at = after, at + half
    if none:
        yield Change(datetime(2027, 3, 28, 1, tzinfo=UTC), before, before)


@functools.cache
def odd_changes() -> dict[str, list[Change]]:
    """The changes of the odd zones; of Apia the one that left out the 30th of December 2011."""
    odd = {name: list(changes(zone_rules.zone(name))) for name in ODD}
    odd["Pacific/Apia"] = [Change(datetime(2011, 12, 30, 10, tzinfo=UTC), -10 * 60, 14 * 60)]
    return odd


@pytest.mark.parametrize("name", distinct())
def test_a_line_fires_as_the_rules_say_around_each_change(name: str) -> None:
    where = zone_rules.zone(name)
    lines = {text: CronLine.parse(text, name) for text in (*FIXED, *RHYTHMS)}
    for change in changes(where):
        for text, line in lines.items():
            reach = (AROUND_FIXED if text in FIXED else AROUND_RHYTHM) * MINUTE
            at = EPOCH + change.minute * MINUTE
            expected = walked(text, change.minute, change.before, change.after)
            assert tuple(fired(line, at - reach, at + reach)) == expected, f"{text} around {at}"


@st.composite
def parts(draw: st.DrawFn, low: int, high: int) -> tuple[str, set[int]]:
    """A field of a line, and its values."""
    if draw(st.booleans()):
        step = draw(st.sampled_from((1, 2, 3, 5, 7, 10)))
        return f"*/{step}", set(range(low, high + 1, step))
    values = draw(st.sets(st.integers(low, high), min_size=1, max_size=3))
    return ",".join(map(str, values)), values


@given(st.data(), st.sampled_from(ODD), parts(0, 59), parts(0, 23), st.booleans())
@settings(deadline=None, max_examples=200)
def test_any_line_fires_as_the_rules_say(
    data: st.DataObject,
    name: str,
    minutes: tuple[str, set[int]],
    hours: tuple[str, set[int]],
    on_one_day: bool,
) -> None:
    change = data.draw(st.sampled_from(odd_changes()[name]))
    (minute, in_minutes), (hour, in_hours) = minutes, hours
    day = (EPOCH + change.wall(change.minute) * MINUTE).day

    def names(wall: int) -> bool:
        shown = EPOCH + wall * MINUTE
        wanted = shown.minute in in_minutes and shown.hour in in_hours
        return wanted and (shown.day == day or not on_one_day)

    line = CronLine.parse(f"{minute} {hour} {day if on_one_day else '*'} * *", name)
    assert line.fixed == ("*" not in minute + hour)
    at, reach = EPOCH + change.minute * MINUTE, AROUND_FIXED * MINUTE
    expected = list(walk(names, change, AROUND_FIXED, fixed=line.fixed))
    assert list(fired(line, at - reach, at + reach)) == expected


def test_no_zone_changes_its_clock_twice_within_six_days() -> None:
    # What looks for the next change goes by days, and must not pass over two of them.
    for name in distinct():
        real = _written_changes(data_of(name))
        for one, other in itertools.pairwise(real):
            assert other - one > 6 * 86400, name


def test_every_name_of_the_list_is_a_zone() -> None:
    for name in zone_rules.zone_names():
        assert CronLine.parse("@daily", name).local(FIRST).utcoffset() is not None


def _offset(where: ZoneInfo, at: datetime) -> int:
    offset = at.astimezone(where).utcoffset()
    assert offset is not None
    return offset // MINUTE


def _written_changes(data: bytes) -> list[int]:
    """The seconds since 1970 at which a zone's file changes the offset: the 64-bit block of RFC 9636."""

    def counts(at: int) -> tuple[int, ...]:
        return struct.unpack_from(">4s16x6l", data, at)[1:]

    isut, isstd, leap, times, types, chars = counts(0)
    at = 44 + times * 5 + types * 6 + chars + leap * 8 + isstd + isut
    _, _, _, times, types, _ = counts(at)
    at += 44
    when = struct.unpack_from(f">{times}q", data, at)
    kinds = data[at + 8 * times : at + 9 * times]
    at += 9 * times
    offsets = [struct.unpack_from(">l", data, at + 6 * kind)[0] for kind in range(types)]
    shown = [offsets[kind] for kind in kinds]
    return [
        second
        for second, before, after in zip(when[1:], shown, shown[1:], strict=False)
        if before != after
    ]
