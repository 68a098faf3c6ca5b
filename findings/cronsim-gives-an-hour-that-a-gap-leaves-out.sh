#!/usr/bin/env bash
# cronsim 2.8: in the night a clock is put forward, a line with `*` in its minutes can give a local time that
# does not exist, and can pass over one that does.
#
# A line whose minute or hour begins with `*` follows real time there: what the gap leaves out is passed
# over, all else comes. Two zones show otherwise. Havana goes from 24:00 to 01:00: `*/30 0 9 3 *`, the half
# hours of the first hour of 9 March, gives 00:00-05:00, which no clock there showed; it is 01:00-04:00, an
# hour that the line does not name. Lord Howe goes from 02:00 to 02:30: `*/30 */5 * * *`, on from 01:00 of
# that night, passes over 05:00, three hours behind the gap, and goes on at 05:30. So a job at midnight runs
# at one o'clock, and another does not run at all. The rules are the pinned tzdata's, not the machine's.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q cronsim==2.8 tzdata==2026.6
seen=$(PYTHONTZPATH='' "$work/venv/bin/python" - <<'PYTHON'
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim

havana, howe = ZoneInfo("America/Havana"), ZoneInfo("Australia/Lord_Howe")
first = next(CronSim("*/30 0 9 3 *", datetime(2025, 3, 1, tzinfo=havana)))
print(first.isoformat(), "is", first.astimezone(UTC).astimezone(havana).isoformat())
fires = CronSim("*/30 */5 * * *", datetime(2028, 10, 1, 1, 0, tzinfo=howe))
print(*(next(fires).strftime("%H:%M") for _ in range(3)))
# What it passed over is a time of that zone like any other.
five = datetime(2028, 10, 1, 5, 0, tzinfo=howe)
print(five.astimezone(UTC).astimezone(howe).strftime("%H:%M"), "exists")
PYTHON
)
echo "$seen"
expected='2025-03-09T00:00:00-05:00 is 2025-03-09T01:00:00-04:00
05:30 10:00 10:30
05:00 exists'
[[ $seen == "$expected" ]] || { echo "it reads otherwise now: this finding is out of date"; exit 1; }
