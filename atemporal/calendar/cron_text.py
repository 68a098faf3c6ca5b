"""The text of a cron line: what is read, and what is refused with what to write instead.

Promise: `expression` gives five fields that cronsim reads as they were meant. Mechanism: cronsim is
asked about each term by itself, so that the one that is wrong can be named; the advice is ours
(`cron_advice`). Failure: `Invalid` for the field `cron`.
"""

from __future__ import annotations

import difflib
import re
from datetime import datetime

from cronsim import CronSim, CronSimError

from atemporal.calendar.cron_advice import advice, of_step
from atemporal.calendar.cron_field import FIELDS, CronField
from atemporal.errors import Invalid

NAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
LONGEST = 400
"""Characters; each field with all its values as a list has fewer."""
FORM = "minute, hour, day of the month, month, day of the week"
# Any day will do: the search for a first fire must not depend on a clock.
_ANY_DAY = datetime(2000, 1, 1)  # noqa: DTZ001


def expression(text: str) -> str:
    """The five fields of a line, as cronsim reads them; `text` has single spaces.

    Raises:
        Invalid: `cron` can not be read, or never fires.
    """
    try:
        fields = NAMES[text.lower()] if text.lower() in NAMES else _fields(text)
        try:
            next(CronSim(fields, _ANY_DAY))
        except (CronSimError, StopIteration):
            raise ValueError(
                f"{text!r} never fires: no month that it names has such a day"
            ) from None
    except ValueError as error:
        raise Invalid({"cron": str(error)}) from None
    return fields


def _fields(text: str) -> str:
    parts = text.lower().split()
    if not parts:
        raise ValueError(
            f"is empty; write five fields ({FORM}) such as `30 2 * * *`, or a name such as @daily"
        )
    if len(text) > LONGEST:
        raise ValueError(f"has {len(text)} characters; {LONGEST} are allowed")
    if parts[0].startswith("@"):
        raise ValueError(_about_name(text, parts[0]))
    if parts[0].startswith(("tz=", "cron_tz=")):
        raise ValueError(
            f"{text!r} names a zone; write it in `zone`, and here the five fields alone"
        )
    if len(parts) != len(FIELDS):
        raise ValueError(
            f"{text!r} has {len(parts)} field{'s'[: len(parts) > 1]}; write five: {FORM}."
            " Seconds, years and commands have no place in it"
        )
    return " ".join(_read(field, part) for field, part in zip(FIELDS, parts, strict=True))


def _about_name(text: str, name: str) -> str:
    if name == "@reboot":
        return (
            "@reboot is no time: nothing here is started again; write when, such as `30 2 * * *`"
        )
    if name == "@every":
        return (
            f"{text!r} counts from a start that nobody knows; write steps, such as `*/15 * * * *`"
        )
    near = difflib.get_close_matches(name, NAMES, n=1)
    return f"{text!r} is not known; write {near[0] if near else ', '.join(NAMES)}"


def _read(field: CronField, part: str) -> str:
    return ",".join(_read_term(field, term) for term in part.split(","))


def _read_term(field: CronField, term: str) -> str:
    """One term of a field's list, as cronsim is to read it."""
    span = re.fullmatch(r"([^-/]+)-([^-/]+)(/[0-9]{1,9})?", term)
    ends = (field.value(span[1]), field.value(span[2])) if span else (None, None)
    if span and span[3] and ends[0] is not None and ends[0] == ends[1]:
        # cronsim takes `5-5/2` for `5/2`, which goes on to the end of the field.
        step, term = span[3], span[1]
        if not int(step[1:]):
            raise ValueError(f"{field.name} {span[0]!r}: a step is at least 1")
    stars = ["*"] * len(FIELDS)
    stars[FIELDS.index(field)] = term
    try:
        CronSim(" ".join(stars), _ANY_DAY)
    except (CronSimError, ValueError):
        raise ValueError(f"{field.name} {term!r}: {advice(field, term)}") from None
    if "/" in term and term.startswith("l"):
        raise ValueError(
            f"{field.name} {term!r}: write `{term.split('/')[0].upper()}`, it has no steps"
        )
    base, _, step = term.partition("/")
    # cronsim takes `5/15` for `5-59/15`, and `*/90` for `0`; Debian's cron refuses the first.
    if step and (wrong := of_step(field, base, int(step))):
        raise ValueError(f"{field.name} {term!r}: {wrong}")
    return term
