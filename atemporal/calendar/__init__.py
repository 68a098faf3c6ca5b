"""What a recurring schedule's cron line means, in a zone, over every change of the clock.

Promise: a line, a zone and an instant give the same next fire in every process that has the same zone
rules, whatever its machine and its environment are. Nothing here reads a clock.

The fields are cronsim's, which reads them as Debian's cron does. The zone rules are those of the
`tzdata` package, never the machine's (`zone_rules`). What a line means where a clock changes is ours:

- A *fixed* line names times of the day: neither its minute nor its hour begins with `*`. It fires when
  the zone's clock first shows such a time or jumps over it. So a time in a gap fires once, when the gap
  ends; a time that comes twice fires once, the first time; and the times of a day that the zone leaves
  out fire once, when the next day begins.
- Any other line is a *rhythm*: it fires whenever the zone's clock shows a minute that it names. So it
  follows real time: it fires in both passes of an hour that comes twice, and not in one left out.

No line fires twice at one instant. ADR 40 says why.

Failure: a line or a zone that can not be read is refused with what to write instead; a line that would
never fire is refused too.
"""

from atemporal.calendar.cron_line import CronLine
from atemporal.calendar.zone_rules import rules_version

__all__ = ["CronLine", "rules_version"]
