"""Checks of the time: this host's clock beside the database's and EC2's, and the age of the zone rules.

Promise: a clock is called wrong only by what it surely differs: half of the question's way and back is
taken off, and for EC2 the second that its header does not tell.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from atemporal.cloud import Unreachable
from atemporal.doctor.check import Check, Result, ok, unchecked, warning, wrong
from atemporal.doctor.cloud import REACHABLE as EC2_REACHABLE
from atemporal.doctor.database import REACHABLE as DATABASE_REACHABLE
from atemporal.doctor.instruments import Instruments
from atemporal.store import server

NOTICEABLE_S = 1.0
"""By so much containers may start late or early."""
WRONG_S = 10.0
"""By so much callbacks, leases and signatures begin to suffer; AWS refuses at five minutes."""
_EC2_TELLS_S = 1.0
OLD_DAYS = 270
"""The zone rules' year has been over for so long: several releases of the rules have come since."""
_NTP = "mend NTP (chrony, systemd-timesyncd) on the host whose clock is wrong"
_VERSION = re.compile(r"(?P<year>20[0-9]{2})\.(?P<number>[0-9]+)")
_SYSTEM_VERSION = re.compile(r"# version (?P<year>20[0-9]{2})(?P<letter>[a-z])")


def database(instruments: Instruments) -> Result:
    """This host's clock is the database's, by which everything is decided."""
    with instruments.database.begin() as tx:
        before = instruments.now()
        theirs = server.clock(tx).timestamp()
        after = instruments.now()
    return _compared("Postgres", theirs, before, after, blur_s=0.0)


def ec2(instruments: Instruments) -> Result:
    """This host's clock is EC2's, which every machine's follows."""
    before = instruments.now()
    # Whatever it answers has the time.
    refusal = instruments.ec2.dry_run("DescribeInstances")
    after = instruments.now()
    if isinstance(refusal, Unreachable):
        raise refusal
    shown = instruments.ec2.date()
    if shown is None:
        return unchecked("EC2's answer has no header Date")
    return _compared("EC2", shown.timestamp(), before, after, blur_s=_EC2_TELLS_S)


def _compared(whose: str, theirs: float, before: float, after: float, *, blur_s: float) -> Result:
    # Ours was at least `before` and at most `after` when theirs was between `theirs` and the blur on.
    ahead, behind = before - theirs - blur_s, theirs - after
    off_s = max(ahead, behind, 0.0)
    if off_s < NOTICEABLE_S:
        return ok(f"this host's clock agrees with that of {whose}")
    which = "ahead of" if ahead > behind else "behind"
    detail = f"this host's clock is {off_s:.1f} s {which} that of {whose}"
    return wrong(detail, _NTP) if off_s >= WRONG_S else warning(detail, _NTP)


def zones(instruments: Instruments) -> Result:
    """The zone rules are not old, and no older than those of this host."""
    version = instruments.rules()
    found = _VERSION.match(version)
    if found is None:
        return unchecked(f"the package tzdata calls itself {version!r}, which names no year")
    year, number = int(found["year"]), int(found["number"])
    today = datetime.fromtimestamp(instruments.now(), UTC)
    upgrade = "upgrade the package tzdata on every host: `pip install --upgrade tzdata`"
    over_days = (today - datetime(year + 1, 1, 1, tzinfo=UTC)).days
    if over_days > OLD_DAYS:
        return wrong(
            f"the zone rules are tzdata {version}, from {over_days // 30} months ago at least: "
            "schedules in zones whose rules have changed since fire at wrong times",
            upgrade,
        )
    system = _system_version(instruments)
    if system and system > (year, number):
        named = f"{system[0]}{chr(ord('a') + system[1] - 1)}"
        return warning(
            f"the zone rules are tzdata {version}, this host's own are newer ({named}); only the "
            "package's count",
            upgrade,
        )
    return ok(f"tzdata {version}")


def _system_version(instruments: Instruments) -> tuple[int, int] | None:
    """The year and the number of this host's own zone rules, where they say it."""
    try:
        with instruments.system_zones.open(encoding="ascii", errors="replace") as lines:
            found = _SYSTEM_VERSION.match(lines.readline())
    except OSError:
        return None
    return (int(found["year"]), ord(found["letter"]) - ord("a") + 1) if found else None


CHECKS = (
    Check("clock.database", database, (DATABASE_REACHABLE,)),
    Check("clock.ec2", ec2, (EC2_REACHABLE,)),
    Check("zones.rules", zones),
)
