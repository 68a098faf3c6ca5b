#!/usr/bin/env bash
# cronsim 2.8 takes `5/15 * * * *`; Debian's cron 3.0pl1-162, whose meaning it follows, refuses that line.
#
# A step belongs to `*` or to a range. Behind a single number cronsim reads it as `5-59/15`: at 5, 20, 35 and
# 50. `crontab` calls the same line a bad minute and installs nothing. So a line that was tried out with one
# is refused by the other. Both take `*/90`, a step that is larger than the field: it is the minute 0 alone,
# once an hour and not each ninety minutes. Needs apt of Debian 12, and root for a mount of its own.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q cronsim==2.8
(cd "$work" && apt-get download -qq cron=3.0pl1-162 2>/dev/null && dpkg -x cron_*.deb deb)
seen=$(
  for line in '5/15 * * * *' '5-59/15 * * * *' '*/90 * * * *'; do
    echo "$line true" >"$work/table"
    # It wants a spool, and fails at the first time where it has to make one: here in a mount that ends.
    unshare --mount sh -c "mount -t tmpfs none /var/spool && mkdir -p /var/spool/cron/crontabs &&
      $work/deb/usr/bin/crontab -n $work/table" >"$work/said" 2>&1 && cron=taken || cron=refused
    reason=$(grep -o 'bad minute' "$work/said" || true)
    fires=$("$work/venv/bin/python" - "$line" <<'PYTHON'
import sys
from datetime import datetime

from cronsim import CronSim

fires = CronSim(sys.argv[1], datetime(2026, 1, 1, 0, 59))
print(*(next(fires).strftime("%H:%M") for _ in range(4)))
PYTHON
    )
    echo "$line: crontab ${cron}${reason:+ ($reason)}, cronsim $fires"
  done
)
echo "$seen"
expected='5/15 * * * *: crontab refused (bad minute), cronsim 01:05 01:20 01:35 01:50
5-59/15 * * * *: crontab taken, cronsim 01:05 01:20 01:35 01:50
*/90 * * * *: crontab taken, cronsim 01:00 02:00 03:00 04:00'
[[ $seen == "$expected" ]] || { echo "they read it otherwise now: this finding is out of date"; exit 1; }
