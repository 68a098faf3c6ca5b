"""What to write instead of a part of a cron line that can not be read.

Promise: for what other programs accept (Quartz, Jenkins, OpenBSD, systemd's habits) the advice says the
same in a way that is read here, if there is one. Failure: of anything else it says what the field takes.
"""

from __future__ import annotations

import re

from atemporal.calendar.cron_field import (
    DAY_OF_MONTH,
    DAY_OF_WEEK,
    HOUR,
    MINUTE,
    CronField,
)


def advice(field: CronField, term: str) -> str:
    """Why the term of the field's list can not be read, and what to write; `term` is lower-case."""
    base, _, step = term.partition("/")
    if not term:
        return "is empty; a list has a value on both sides of each comma"
    if step and not step.strip("0"):
        return "a step is at least 1"
    return (
        _of_other_programs(field, base, step)
        or _of_days(field, base)
        or _of_range(field, base, step)
        or _of_clock(field, base)
        or _of_value(field, base)
        or f"write a value ({field.bounds}), a range, a step such as `*/2`, or a list of these"
    )


def of_step(field: CronField, base: str, step: int) -> str | None:
    """Why a term whose step can be read does not mean what it says; None if it does."""
    first = "*" if base == "*" else base.partition("-")[0]
    value = field.low if first == "*" else field.value(first)
    if value is None:
        return None
    if step > field.cycle:
        return f"a step of {step} is longer than the field ({field.bounds}); write `{value}`"
    if first == base and base != "*":
        return f"a step without a range is Quartz's; write `{value}-{field.high}/{step}`"
    return None


def _of_other_programs(field: CronField, base: str, step: str) -> str | None:
    if base == "?":
        return "`?` is Quartz's; write `*`"
    if hashed := re.fullmatch(r"h(?:\((\d{1,2}-\d{1,2})\))?", base):
        if step:
            return f"`H` is Jenkins's; write `{hashed[1] or '*'}/{step}`"
        return f"`H` is Jenkins's; choose a value, such as `{field.example}`"
    if "~" in base:
        return f"a value by chance can not be had; choose one, such as `{field.example}`"
    return None


def _of_days(field: CronField, base: str) -> str | None:
    if field is DAY_OF_MONTH:
        if re.fullmatch(r"\d{1,2}w|w", base):
            return "the nearest working day can not be said; write a day, or `LW` for the month's last"
        if base.startswith("l"):
            return (
                "days before the month's last can not be said; write `L` for the last, or a number"
            )
        if "#" in base:
            return "`#` belongs to the day of the week, such as `* * fri#2`"
    if field is DAY_OF_WEEK:
        if base == "l":
            return "write `6` or `sat` for Saturday, `6L` for the month's last Saturday"
        day, sign, nth = base.partition("#")
        if not sign and base.endswith("l"):
            day, sign, nth = base[:-1], "#", "l"
        value = field.value(day)
        if sign and (value is None or not field.holds(value)):
            return f"{day!r} is no day of the week; write one ({field.bounds}), such as `fri#2` or `5L`"
        if sign and nth == "l":
            return f"write `{value}L` for the month's last one"
        if sign:
            return f"{nth!r} is no week of a month; write 1 to 5 after `#`, or `{value}L` for the last"
    elif "l" in base and field.value(base) is None and base in ("l", "lw"):
        return f"`L` belongs to a day; write a value ({field.bounds})"
    return None


def _of_range(field: CronField, base: str, step: str) -> str | None:
    if base.count("-") != 1:
        return None
    left, right = base.split("-")
    for end in (left, right):
        if wrong := _of_value(field, end):
            return wrong
    first, last = field.value(left), field.value(right)
    if first is None or last is None or first <= last or (step and not step.isdecimal()):
        return None
    named = not left.isdecimal()
    around = field.around(first, last)[:: int(step[:9] or 1)]
    if step or field is DAY_OF_WEEK:
        instead = ",".join(_written(field, value, named=named) for value in around)
    else:
        spans = ((first, field.high), (field.low, last))
        instead = ",".join(
            "-".join(dict.fromkeys(_written(field, value, named=named) for value in span))
            for span in spans
        )
    return f"a range does not go around; write `{instead}`"


def _of_clock(field: CronField, text: str) -> str | None:
    """Midnight as the end of a day, or the end of an hour."""
    if field in (MINUTE, HOUR) and field.value(text) == field.high + 1:
        return f"{text} is not within {field.bounds}; write `0`"
    return None


def _of_value(field: CronField, text: str) -> str | None:
    value = field.value(text)
    if value is None:
        near = [name for name in field.names if len(text) > 2 and name.startswith(text[:3])]
        return f"names have three letters; write `{near[0][:3]}`" if near else None
    if field.holds(value):
        return None
    return f"{text} is not within {field.bounds}"


def _written(field: CronField, value: int, *, named: bool) -> str:
    return field.names[value - field.low][:3] if named else str(value)
