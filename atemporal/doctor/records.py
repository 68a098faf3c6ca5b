"""Checks of the records: the promises about jobs are kept, nobody has paused all, no dead letter waits,
EC2's limits have tokens, and what waits for a launch fits into a machine's user-data."""

from __future__ import annotations

from atemporal.doctor.check import Check, Result, ok, warning, wrong
from atemporal.doctor.database import MIGRATIONS
from atemporal.doctor.instruments import Instruments
from atemporal.errors import Invalid
from atemporal.limits import Limit
from atemporal.model import JobSpec, parse_spec
from atemporal.plural import counted, plural
from atemporal.rate_limits import sizes
from atemporal.states import JobState
from atemporal.store import dead_letters, listing, pauses, rate_limits, schedules
from atemporal.store.invariants import moved, violations
from atemporal.store.rate_limits import Want
from atemporal.userdata import LIMIT, check_fits, delivery_of, os_family, room

_NAMED = 3
_LOOKED_AT = 500
# So much less than it may be, and EC2 has throttled within the last minute.
_SLOWED = 0.9
# A token that comes sooner than this is none that anybody waits for.
_SOON_S = 1.0


def promises(instruments: Instruments) -> Result:
    """The tables keep every promise about the jobs of late, and those that are under way."""
    with instruments.database.begin() as tx:
        jobs = moved(tx).jobs
        broken = violations(tx, jobs)
    if not broken:
        return ok(f"kept by {counted(len(jobs), 'job')} of late, and those under way")
    named = "; ".join(str(one) for one in broken[:_NAMED])
    more = f"; and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
    return wrong(
        f"{named}{more}",
        "see `atemporal audit`; report it, unless somebody has changed rows by hand",
    )


def pause(instruments: Instruments) -> Result:
    """The installation is not paused."""
    with instruments.database.begin() as tx:
        on = pauses.current(tx)
    if on is None:
        return ok("the installation is not paused")
    return warning(f"{on}: no job is dispatched", "`atemporal resume`, once its reason is over")


def letters(instruments: Instruments) -> Result:
    """No dead letter waits for a decision."""
    with instruments.database.begin() as tx:
        waiting = dead_letters.undecided(tx)
    if not waiting:
        return ok("none waits for a decision")
    more = "or more " if waiting >= dead_letters.COUNTED else ""
    wait = f"{plural(waiting, 'dead letter')} {'waits' if waiting == 1 else 'wait'}"
    return warning(
        f"{waiting} {more}{wait} for a decision: messages that nobody could use",
        "`atemporal dead list`, then `atemporal dead replay` or `drop`",
    )


def tokens(instruments: Instruments) -> Result:
    """The limits on calls to EC2, which all processes share, have tokens."""
    empty: list[str] = []
    slowed: list[str] = []
    known = sizes(instruments.settings)
    with instruments.database.each() as connection:
        for name in sorted(rate_limits.touched(connection) & set(Limit)):
            limit = Limit(name)
            grant = rate_limits.peek(connection, limit, known[limit], Want("doctor"))
            if not grant.granted and grant.ready_s > _SOON_S:
                empty.append(f"{limit} (the next in {grant.ready_s:.0f} s)")
            if grant.pace < _SLOWED:
                slowed.append(f"{limit} ({grant.pace:.0%} of its rate)")
    if not empty and not slowed:
        return ok("every limit on calls to EC2 has tokens")
    used_up = f"no tokens for calls to EC2 of: {', '.join(empty)}" if empty else ""
    throttled = f"EC2 has throttled, so fewer come: {', '.join(slowed)}" if slowed else ""
    return warning(
        "; ".join(filter(None, (used_up, throttled))),
        "launches and ends wait for them: see what else uses this account's limits, have EC2's "
        "raised, then ATEMPORAL_*_BURST and ATEMPORAL_*_RATE",
    )


def user_data(instruments: Instruments) -> Result:
    """What schedules and waiting jobs ask for fits into a machine's user-data."""
    with instruments.database.begin() as tx:
        page = schedules.listing(tx, limit=_LOOKED_AT)
        states = (JobState.SCHEDULED, JobState.QUEUED)
        jobs = listing.page(tx, states=states, limit=_LOOKED_AT, newest_first=True).jobs
    specs = [
        *((f"schedule {one.name}", one.job) for one in page.schedules),
        *((f"job {one.id}", one.spec) for one in jobs),
    ]
    large = [f"{name}: {why}" for name, spec in specs if (why := _too_large(spec))]
    if not large:
        family = os_family(instruments.settings.os_family)
        left = room(parse_spec({"image": "x"}), family)
        asked_for = sum(delivery_of(spec) == "claim" for _, spec in specs)
        return ok(
            f"no schedule or waiting job is too large ({len(specs)} seen, {asked_for} by claim); of "
            f"EC2's {LIMIT} bytes about {left} are for a job's environment and command"
        )
    more = f"; and {len(large) - _NAMED} more" if len(large) > _NAMED else ""
    return wrong(
        "; ".join(large[:_NAMED]) + more,
        "leave out the delivery inline, or shorten the environment or the command (`atemporal schedule "
        "edit`, or cancel and submit again), or let the container fetch what is large",
    )


def _too_large(spec: JobSpec) -> str:
    try:
        check_fits(spec)
    except Invalid as error:
        return "; ".join(error.fields.values())
    return ""


CHECKS = (
    Check("records.promises", promises, (MIGRATIONS,)),
    Check("records.pause", pause, (MIGRATIONS,)),
    Check("records.dead-letters", letters, (MIGRATIONS,)),
    Check("records.user-data", user_data, (MIGRATIONS,)),
    Check("records.rate-limits", tokens, (MIGRATIONS,)),
)
