"""A cron line: what is read, what is refused with which advice, and when it fires."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from importlib.resources import files
from pathlib import Path

import pytest
import tzdata

from atemporal.calendar import CronLine, rules_version
from atemporal.errors import Invalid


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def fires(text: str, zone: str, after: str, before: str) -> list[str]:
    """The fires between two instants, both left out, as the zone's clock shows them."""
    line = CronLine.parse(text, zone)

    def each() -> Iterator[str]:
        at = line.next_after(instant(after))
        while at is not None and at < instant(before):
            assert at.tzinfo is UTC
            yield line.local(at).isoformat(timespec="minutes")
            at = line.next_after(at)

    return list(each())


def refusal(text: str, zone: str = "UTC") -> dict[str, str]:
    with pytest.raises(Invalid) as refused:
        CronLine.parse(text, zone)
    return refused.value.fields


def first(text: str, after: str = "2026-01-01T00:00Z") -> str:
    """The first fire in UTC."""
    fire = CronLine.parse(text, "UTC").next_after(instant(after))
    assert fire is not None
    return fire.strftime("%Y-%m-%d %H:%M")


# What is read


def test_a_line_says_what_it_was_made_of() -> None:
    line = CronLine.parse("  30\t2 * *  MON-fri ", " Europe/Berlin ")
    assert (line.text, line.zone) == ("30 2 * * MON-fri", "Europe/Berlin")
    assert line == CronLine.parse("30 2 * * MON-fri", "Europe/Berlin")
    assert line != CronLine.parse("30 2 * * MON-fri", "Europe/Paris")
    assert repr(line) == "CronLine(text='30 2 * * MON-fri', zone='Europe/Berlin')"


@pytest.mark.parametrize(
    ("text", "fire"),
    [
        ("@hourly", "2026-01-01 01:00"),
        ("@daily", "2026-01-02 00:00"),
        ("@midnight", "2026-01-02 00:00"),
        ("@Weekly", "2026-01-04 00:00"),
        ("@monthly", "2026-02-01 00:00"),
        ("@yearly", "2027-01-01 00:00"),
        ("@annually", "2027-01-01 00:00"),
        ("5 4 * * sun", "2026-01-04 04:05"),
        ("5 4 * * 7", "2026-01-04 04:05"),
        ("0 22-23,0-2 * * *", "2026-01-01 01:00"),
        ("5-59/20 * * * *", "2026-01-01 00:05"),
        # A step as long as the field is one value, and says just that: once an hour, once a day.
        ("*/60 * * * *", "2026-01-01 01:00"),
        ("0 */24 * * *", "2026-01-02 00:00"),
        ("0 0 29 FEB *", "2028-02-29 00:00"),
        ("0 0 L 2 *", "2026-02-28 00:00"),
        ("0 0 LW 5 *", "2026-05-29 00:00"),
        ("0 0 * * 5L", "2026-01-30 00:00"),
        ("0 0 * * fri#2", "2026-01-09 00:00"),
    ],
)
def test_a_line_is_read_as_debians_cron_reads_it(text: str, fire: str) -> None:
    assert first(text) == fire


@pytest.mark.parametrize(
    ("text", "fire"),
    [
        # Either of the two; from the second on both: `*/3` is the 1st, the 4th, and so on.
        ("0 0 13 * fri", "2026-01-02 00:00"),
        ("0 0 */3 * fri", "2026-01-16 00:00"),
        ("0 0 13 * */7", "2026-09-13 00:00"),
        ("0 0 *,13 * fri", "2026-01-02 00:00"),
    ],
)
def test_both_days_mean_either_and_a_star_before_one_means_both(text: str, fire: str) -> None:
    assert first(text) == fire


def test_a_range_of_one_value_has_no_further_steps() -> None:
    assert fires("5-5/20 0 * * *", "UTC", "2026-01-01T00:00Z", "2026-01-02T00:00Z") == [
        "2026-01-01T00:05+00:00"
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty; write five fields"),
        ("30 2 * *", "has 4 fields; write five: minute, hour,"),
        ("30", "has 1 field; write five"),
        ("0 30 2 * * *", "has 6 fields; write five: minute, hour,"),
        ("30 2 * * * /usr/bin/backup", "has 6 fields; write five"),
        ("@reboot", "@reboot is no time"),
        ("@every 5m", "write steps, such as `*/15 * * * *`"),
        ("@dayly", "write @daily"),
        ("@noon", "write @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly"),
        ("CRON_TZ=Asia/Tokyo 30 2 * * *", "write it in `zone`"),
        ("60 * * * *", "minute '60': 60 is not within 0-59; write `0`"),
        ("0 24 * * *", "hour '24': 24 is not within 0-23; write `0`"),
        ("0 22-24 * * *", "hour '22-24': 24 is not within 0-23"),
        ("0 0 32 * *", "day of the month '32': 32 is not within 1-31"),
        ("0 0 * 0 *", "month '0': 0 is not within 1-12 or jan-dec"),
        ("0 0 * * 8", "day of the week '8': 8 is not within 0-7 or sun-sat"),
        ("*/0 * * * *", "minute '*/0': a step is at least 1"),
        ("5-5/0 * * * *", "minute '5-5/0': a step is at least 1"),
        ("1,,2 * * * *", "minute '': is empty"),
        ("0 0 ? * *", "`?` is Quartz's; write `*`"),
        ("H 2 * * *", "`H` is Jenkins's; choose a value, such as `17`"),
        ("0~30 2 * * *", "choose one, such as `17`"),
        ("0 0 15W * *", "the nearest working day can not be said"),
        ("0 0 L-3 * *", "days before the month's last can not be said"),
        ("0 0 L/2 * *", "write `L`, it has no steps"),
        ("0 0 fri#2 * *", "`#` belongs to the day of the week"),
        ("L 0 * * *", "`L` belongs to a day"),
        ("0 0 * * mon#6", "'6' is no week of a month; write 1 to 5 after `#`"),
        ("0 0 * * 9#1", "'9' is no day of the week"),
        ("0 0 * * monday", "names have three letters; write `mon`"),
        ("0 0 * january *", "names have three letters; write `jan`"),
        (
            "x * * * *",
            "minute 'x': write a value (0-59), a range, a step such as `*/2`, or a list",
        ),
        ("1/2/3 * * * *", "minute '1/2/3': write a value (0-59)"),
        ("1- * * * *", "minute '1-': write a value (0-59)"),
        (f"{'9' * 390} * * * *", "minute '999"),
        (f"{'9' * 5000} * * * *", "has 5008 characters; 400 are allowed"),
    ],
)
def test_what_can_not_be_read_is_refused_with_what_to_write(text: str, says: str) -> None:
    fields = refusal(text)
    assert fields.keys() == {"cron"}
    assert says in fields["cron"]


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("22-2 * * * *", "22-59,0-2"),
        ("0 22-2 * * *", "22-23,0-2"),
        ("0 23-2 * * *", "23,0-2"),
        ("0 22-4/3 * * *", "22,1,4"),
        ("0 0 28-3 * *", "28-31,1-3"),
        ("0 0 * nov-feb *", "nov-dec,jan-feb"),
        ("0 0 * 11-2 *", "11-12,1-2"),
        ("0 0 * * fri-mon", "fri,sat,sun,mon"),
        ("0 0 * * sat-sun", "sat,sun"),
        ("0 0 * * 5-1", "5,6,0,1"),
        ("0 0 * * 7-2", "0,1,2"),
        ("H/15 * * * *", "*/15"),
        ("H(0-29)/10 * * * *", "0-29/10"),
        ("0 0 * * ?", "*"),
        ("0 0 * * friL", "5L"),
        ("5/15 * * * *", "5-59/15"),
        ("0 8/4 * * *", "8-23/4"),
        ("0 0 1/2 * *", "1-31/2"),
        ("0 0 * mar/3 *", "3-12/3"),
        ("0 0 * * mon/2", "1-7/2"),
        ("10,5/15 * * * *", "5-59/15"),
        ("*/90 * * * *", "0"),
        ("*/61 * * * *", "0"),
        ("5/90 * * * *", "5"),
        ("5-20/90 * * * *", "5"),
        ("0 */36 * * *", "0"),
        ("0 0 */40 * *", "1"),
        ("0 0 * */13 *", "1"),
        ("0 0 * * */8", "0"),
    ],
)
def test_what_is_advised_is_read(text: str, instead: str) -> None:
    why = refusal(text)["cron"]
    assert re.findall(r"write `([^`]+)`", why) == [instead], why
    term = re.search(r"'([^']+)'", why)
    assert term is not None
    CronLine.parse(re.sub(re.escape(term[1]), instead, text, flags=re.IGNORECASE), "UTC")


@pytest.mark.parametrize("text", ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 */31 * mon#5"])
def test_a_line_that_never_fires_is_refused(text: str) -> None:
    assert refusal(text)["cron"].startswith(f"{text!r} never fires")


@pytest.mark.parametrize(
    ("zone", "says"),
    [
        ("", "is empty; write a name of the IANA list such as Europe/Berlin, or UTC"),
        ("europe/berlin", "did you mean Europe/Berlin"),
        ("Berlin", "did you mean Europe/Berlin?"),
        ("America/New York", "did you mean America/New_York"),
        ("Europe/Kyev", "did you mean Europe/Kyiv"),
        ("../../etc/passwd", "is no zone of tzdata"),
        ("posixrules", "is no zone of tzdata"),
        ("x" * 100, "has 100 characters"),
    ],
)
def test_an_unknown_zone_is_refused_with_names_near_it(zone: str, says: str) -> None:
    fields = refusal("@daily", zone)
    assert fields.keys() == {"zone"}
    assert says in fields["zone"]


def test_all_that_is_wrong_is_said_at_once() -> None:
    assert refusal("61 * * * *", "Mars/Base").keys() == {"cron", "zone"}


# When it fires


def test_a_fire_is_strictly_after_the_instant() -> None:
    line = CronLine.parse("30 2 * * *", "Europe/Berlin")
    fire = instant("2026-07-01T02:30+02:00")
    microsecond = timedelta(microseconds=1)
    assert line.next_after(fire - microsecond) == fire
    assert line.next_after(fire) == fire + timedelta(days=1)
    assert line.next_after(fire + microsecond) == fire + timedelta(days=1)
    assert line.next_after((fire - microsecond).astimezone(timezone(timedelta(hours=9)))) == fire


def test_an_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="has no zone"):
        CronLine.parse("@daily", "UTC").next_after(datetime(2026, 1, 1))  # noqa: DTZ001


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Pacific/Kiritimati"])
@pytest.mark.parametrize("text", ["@daily", "*/5 * * * *", "0 0 29 2 *", "* * 29 2 *"])
def test_there_is_no_fire_beyond_the_end_of_datetimes(text: str, zone: str) -> None:
    line = CronLine.parse(text, zone)
    end = datetime.max.replace(tzinfo=UTC)
    assert line.next_after(end) is None
    at: datetime | None = end - timedelta(days=2)
    for _ in range(1000):
        at = at and line.next_after(at)
    assert at is None


@pytest.mark.parametrize(
    ("text", "zone", "after", "before", "expected"),
    [
        # An hour that is left out, and one that comes twice.
        (
            *("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", "2026-03-30T12:00Z"),
            ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"],
        ),
        (
            *("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z", "2026-10-26T12:00Z"),
            ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"],
        ),
        # Several fixed times in one gap are one fire, also with the time at which the gap ends.
        (
            *("15,45 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00Z", "2026-03-29T12:00Z"),
            ["2026-03-29T03:00+02:00", "2026-03-29T03:15+02:00", "2026-03-29T03:45+02:00"],
        ),
        (
            *("0 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00Z", "2026-03-29T12:00Z"),
            ["2026-03-29T03:00+02:00"],
        ),
        # A rhythm goes on in real time.
        (
            *("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:29Z", "2026-03-29T01:31Z"),
            ["2026-03-29T01:30+01:00", "2026-03-29T03:00+02:00", "2026-03-29T03:30+02:00"],
        ),
        (
            *("0 * * * *", "Europe/Berlin", "2026-10-24T23:30Z", "2026-10-25T02:30Z"),
            ["2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00", "2026-10-25T03:00+01:00"],
        ),
        (
            *("*/30 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", "2026-03-30T12:00Z"),
            ["2026-03-30T02:00+02:00", "2026-03-30T02:30+02:00"],
        ),
        # A list that names every hour is no rhythm: it has no `*`.
        (
            *("0 0-23 * * *", "Europe/Berlin", "2026-10-24T23:30Z", "2026-10-25T02:30Z"),
            ["2026-10-25T02:00+02:00", "2026-10-25T03:00+01:00"],
        ),
        # Half an hour, with a rhythm that meets the change in the middle of an hour.
        (
            *("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00Z", "2026-10-05T00:00Z"),
            ["2026-10-04T02:30+11:00", "2026-10-05T02:15+11:00"],
        ),
        (
            *("*/30 */5 * * *", "Australia/Lord_Howe", "2026-10-03T14:00Z", "2026-10-03T19:00Z"),
            ["2026-10-04T05:00+11:00", "2026-10-04T05:30+11:00"],
        ),
        # Two hours.
        (
            *("30 1 * * *", "Antarctica/Troll", "2026-03-28T12:00Z", "2026-03-30T12:00Z"),
            ["2026-03-29T03:00+02:00", "2026-03-30T01:30+02:00"],
        ),
        # At midnight: the day begins later, or twice.
        (
            *("0 0 * * *", "Africa/Cairo", "2026-04-23T12:00Z", "2026-04-25T12:00Z"),
            ["2026-04-24T01:00+03:00", "2026-04-25T00:00+03:00"],
        ),
        (
            *("0 0 * * *", "America/Havana", "2028-11-04T12:00Z", "2028-11-06T12:00Z"),
            ["2028-11-05T00:00-04:00", "2028-11-06T00:00-05:00"],
        ),
        (
            *("*/30 0 8 * *", "America/Havana", "2026-03-07T12:00Z", "2026-03-09T12:00Z"),
            [],
        ),
        (
            *("30 23 * * *", "Asia/Beirut", "2026-10-24T12:00Z", "2026-10-26T12:00Z"),
            ["2026-10-24T23:30+03:00", "2026-10-25T23:30+02:00"],
        ),
        # A day that is left out: nothing is lost, though a daily line fires twice within hours.
        (
            *("30 2 * * *", "Pacific/Apia", "2011-12-29T14:00Z", "2011-12-31T12:00Z"),
            ["2011-12-31T00:00+14:00", "2011-12-31T02:30+14:00"],
        ),
        (
            *("0 3 30 * *", "Pacific/Apia", "2011-12-01T00:00Z", "2012-02-01T00:00Z"),
            ["2011-12-31T00:00+14:00", "2012-01-30T03:00+14:00"],
        ),
        (
            *("0 0 * * *", "Pacific/Apia", "2011-12-29T12:00Z", "2011-12-31T12:00Z"),
            ["2011-12-31T00:00+14:00", "2012-01-01T00:00+14:00"],
        ),
        (*("0 */6 30 * *", "Pacific/Apia", "2011-12-28T00:00Z", "2012-01-02T00:00Z"), []),
    ],
)
def test_a_change_of_the_clock(
    text: str, zone: str, after: str, before: str, expected: list[str]
) -> None:
    assert fires(text, zone, after, before) == expected


# Whose rules


def test_the_version_of_the_rules_is_the_packages() -> None:
    assert rules_version() == tzdata.__version__
    assert re.fullmatch(r"\d{4}\.\d+", rules_version())


@pytest.mark.parametrize(
    ("zone", "fire"),
    [
        # Decided in 2026: none of these puts its clock back any more, or it has done so for good.
        ("America/Vancouver", "2026-12-01T02:30-07:00"),
        ("America/Edmonton", "2026-12-01T02:30-06:00"),
        ("America/Winnipeg", "2026-12-01T02:30-05:00"),
        ("Africa/Casablanca", "2026-12-01T02:30+00:00"),
    ],
)
def test_what_was_decided_lately_is_known(zone: str, fire: str) -> None:
    line = CronLine.parse("30 2 1 12 *", zone)
    assert line.next_after(instant("2026-06-01T00:00Z")) == instant(fire)


def test_the_machines_zone_files_change_nothing(tmp_path: Path) -> None:
    tokyo = files("tzdata").joinpath("zoneinfo", "Asia", "Tokyo").read_bytes()
    other = tmp_path / "Europe" / "Berlin"
    other.parent.mkdir()
    other.write_bytes(tokyo)
    code = (
        "import json; from datetime import datetime, UTC; from zoneinfo import ZoneInfo\n"
        "from atemporal.calendar import CronLine\n"
        "at = datetime(2026, 7, 1, tzinfo=UTC)\n"
        "line = CronLine.parse('30 2 * * *', 'Europe/Berlin')\n"
        "machine = at.astimezone(ZoneInfo('Europe/Berlin')).utcoffset().total_seconds()\n"
        "print(json.dumps([machine, line.next_after(at).isoformat(), line.local(at).isoformat()]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONTZPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [
        9 * 3600,
        "2026-07-01T00:30:00+00:00",
        "2026-07-01T02:00:00+02:00",
    ]


def test_a_line_can_be_copied_to_another_process() -> None:
    line = CronLine.parse("30 2 * * *", "Europe/Berlin")
    copy = pickle.loads(pickle.dumps(line))
    at = instant("2026-03-28T12:00Z")
    assert (copy, copy.next_after(at)) == (line, line.next_after(at))
