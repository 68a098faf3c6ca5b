"""Token buckets that all processes share, by the database's clock.

Promise: of one limit no more is granted, over all processes, than its buckets hold and refill. Each
operation is one statement that is a transaction of its own: no lock is held while a call is made, nor by
a process that stops in the middle. Whoever got less than it wanted keeps its place for a while: the
others leave a token for each that came before them, and while others wait nobody is granted more than
an equal share.
Mechanism: a row is a limit with both of its buckets, `requests` and `instances`. How large they are
comes with each statement, so the settings have no copy here. After EC2 throttled, both refill at `pace`
times their rate; `pace` grows back with time alone.
A call arrives at EC2 some time after its token was taken, and until then EC2's own bucket does not
refill, if it was full. So what was full here begins to refill up to `LAG_S` after it was touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, TextClause, text

LAG_S = 1.0
"""So much later than its token was taken a call may arrive and still not be one too many."""
ONE_SIGN_S = 1.0
"""Calls in flight are throttled together: what comes within this is one sign, of all processes."""
SLOWEST = 0.025
"""The slowest pace, as a part of the full rate."""
GROW_S = 60.0
"""The seconds in which the pace grows from nothing to the full rate."""
TURN_S = 1.0
"""Who has waited for so long and is the first is served, even at what it leaves to others."""
PATIENCE_S = 2.0
"""How long after it could have come again a waiting process keeps its place."""


@dataclass(frozen=True)
class Bucket:
    """A bucket's size in tokens, and how many come back each second at full pace."""

    burst: float
    rate: float


@dataclass(frozen=True)
class Size:
    """The buckets of one limit; without `instances` calls alone are counted."""

    requests: Bucket
    instances: Bucket | None = None


@dataclass(frozen=True)
class Want:
    """What is asked for: `n` of what the limit counts, or at least so many; what is left to others."""

    taker: str
    n: int = 1
    at_least: int = 1
    leave_requests: float = 0.0
    leave_instances: float = 0.0


@dataclass(frozen=True)
class Grant:
    """What was granted, what the buckets hold after it, and the seconds until one more is there."""

    granted: int
    requests: float
    instances: float
    pace: float
    ready_s: float


# Which tokens there are now, and who waits. A place is [since, until], in seconds since the epoch. In
# braces stands what differs where calls alone are counted.
_OFFER = """
    WITH found AS (
        SELECT *, extract(epoch FROM clock_timestamp())::float8 AS at,
               extract(epoch FROM updated_at)::float8 AS before
        FROM rate_limits WHERE name = :name {lock}
    ), filled AS (
        SELECT name, at, waiting, shrunk_at,
               -- A clock that was set back holds nobody up for longer than the lag.
               least(before, at + :lag_s) AS since,
               least(pace + greatest(at - before, 0) / :grow_s, 1) AS pace,
               least(:burst, requests + greatest(at - before, 0) * pace * :rate) AS requests,
               least(:instance_burst, instances + greatest(at - before, 0) * pace * :instance_rate)
                   AS instances
        FROM found
    ), placed AS (
        SELECT *, CASE WHEN (waiting -> :taker ->> 1)::float8 > at
            THEN least((waiting -> :taker ->> 0)::float8, at) ELSE at END AS mine
        FROM filled
    ), queued AS (
        SELECT placed.*, others.kept, others.many, others.ahead
        FROM placed, LATERAL (
            SELECT coalesce(jsonb_object_agg(key, value), jsonb '{{}}') AS kept, count(*) AS many,
                   count(*) FILTER (WHERE (value ->> 0)::float8 < mine) AS ahead
            FROM jsonb_each(waiting) WHERE key <> :taker AND (value ->> 1)::float8 > at
        ) AS others
    ), offered AS (
        -- Rounding must not cost a caller its token after it waited for exactly so long.
        SELECT *, CASE WHEN {enough} THEN
            least(:n, greatest(floor(({units} + 1e-6) / (1 + many)), :at_least))::int ELSE 0
        END AS granted
        FROM queued
    ), spent AS (
        SELECT *, CASE WHEN granted = 0 THEN ahead ELSE many END AS first_served,
               requests - CASE WHEN granted = 0 THEN 0 ELSE {calls} END AS requests_left,
               instances - {taken} AS instances_left,
               -- What is above this may be full at EC2 until the call is there.
               {lag} AS lag_s
        FROM offered
    ), decided AS (
        SELECT *, greatest(since - at, CASE WHEN granted = 0 THEN 0 ELSE lag_s END) AS pause_s,
               greatest(0, {ready}) AS tokens_in_s
        FROM spent
    ), ready AS (
        SELECT *, CASE WHEN tokens_in_s = 0 THEN 0 ELSE pause_s + tokens_in_s END AS ready_s
        FROM decided
    )
"""
_ENOUGH = "requests - {leave} + 1e-6 >= ahead + {least}"
# Where more is always wanted than refills, nothing would ever be left: the first in the queue that has
# waited for so long gets the least that it wants out of what it leaves.
_LEFT = "CASE WHEN ahead = 0 AND at - mine > :turn_s THEN 0 ELSE :leave_{bucket} END"
_READY = "(1 + first_served + :leave_requests - requests_left) / (:rate * pace)"
_LAG = "greatest({tokens} - {burst} + least(:lag_s * {rate}, {burst} / 2), 0) / {rate}"
_CALLS = {
    "enough": _ENOUGH.format(leave=_LEFT.format(bucket="requests"), least=":at_least"),
    "units": "requests - :leave_requests",
    "calls": "granted",
    "taken": "0",
    "lag": _LAG.format(tokens="requests", burst=":burst", rate=":rate"),
    "ready": _READY,
}
_INSTANCES = {
    "enough": _ENOUGH.format(leave=_LEFT.format(bucket="requests"), least="1")
    + f" AND instances - {_LEFT.format(bucket='instances')} + 1e-6 >= ahead + :at_least",
    "units": "instances - :leave_instances",
    "calls": "1",
    "taken": "granted",
    "lag": f"greatest({_CALLS['lag']}, "
    + _LAG.format(tokens="instances", burst=":instance_burst", rate=":instance_rate")
    + ")",
    "ready": f"{_READY}, (1 + first_served + :leave_instances - instances_left)"
    " / (:instance_rate * pace)",
}
_PEEK = "SELECT granted, requests, instances, pace, ready_s FROM ready"
_TAKE = """
    UPDATE rate_limits AS old SET
        requests = requests_left, instances = instances_left, pace = ready.pace,
        updated_at = to_timestamp(at + pause_s),
        waiting = kept || CASE WHEN granted >= :n THEN jsonb '{}' ELSE jsonb_build_object(
            CAST(:taker AS text), jsonb_build_array(
                CASE WHEN granted = 0 THEN mine ELSE at END, at + ready_s + :patience_s)) END
    FROM ready WHERE old.name = ready.name
    RETURNING granted, requests_left AS requests, instances_left AS instances,
              ready.pace AS pace, ready_s
"""
_THROTTLED = """
    WITH found AS (
        SELECT name, requests, instances, extract(epoch FROM clock_timestamp())::float8 AS at,
               greatest(extract(epoch FROM clock_timestamp() - updated_at), 0)::float8 AS passed,
               least(pace + greatest(extract(epoch FROM clock_timestamp() - updated_at), 0)
                   / :grow_s, 1) AS pace,
               shrunk_at IS NULL
                   OR abs(extract(epoch FROM clock_timestamp() - shrunk_at)) >= :one_sign_s AS sign
        FROM rate_limits WHERE name = :name FOR UPDATE
    )
    UPDATE rate_limits AS old SET
        requests = 0,
        instances = found.instances / CASE WHEN sign THEN 2 ELSE 1 END,
        pace = CASE WHEN sign THEN greatest(found.pace / 2, :slowest) ELSE found.pace END,
        shrunk_at = CASE WHEN sign THEN to_timestamp(at) ELSE old.shrunk_at END,
        updated_at = to_timestamp(at)
    FROM found WHERE old.name = found.name
"""
_FILL = """
    INSERT INTO rate_limits (name, requests, instances, updated_at)
    VALUES (:name, :burst, :instance_burst, clock_timestamp()) ON CONFLICT (name) DO NOTHING
"""


def _statements(parts: dict[str, str]) -> tuple[TextClause, TextClause]:
    locked = _OFFER.format(lock="FOR UPDATE", **parts) + _TAKE
    return text(locked), text(_OFFER.format(lock="", **parts) + _PEEK)


_OF_CALLS = _statements(_CALLS)
_OF_INSTANCES = _statements(_INSTANCES)


def take(each: Connection, name: str, size: Size, want: Want) -> Grant:
    """Take tokens for one call; `each` commits each statement by itself."""
    return _ask(each, 0, name, size, want)


def peek(each: Connection, name: str, size: Size, want: Want) -> Grant:
    """Say what `take` would grant now; nothing is changed."""
    return _ask(each, 1, name, size, want)


def throttled(each: Connection, name: str, size: Size) -> None:
    """EC2 refused a call as one too many: wait for new tokens, and refill at half the pace.

    Half of the instances' tokens go too: EC2 does not say which of the two buckets was empty.
    """
    values = {"name": name, "grow_s": GROW_S, "one_sign_s": ONE_SIGN_S, "slowest": SLOWEST}
    if not each.execute(text(_THROTTLED), values).rowcount:
        _fill(each, name, size)
        each.execute(text(_THROTTLED), values)


def _ask(each: Connection, which: int, name: str, size: Size, want: Want) -> Grant:
    statement = (_OF_INSTANCES if size.instances else _OF_CALLS)[which]
    # Where calls alone are counted, these have no part in it.
    instances = size.instances or Bucket(0.0, 1.0)
    values: dict[str, Any] = {
        "name": name,
        "burst": size.requests.burst,
        "rate": size.requests.rate,
        "instance_burst": instances.burst,
        "instance_rate": instances.rate,
        "taker": want.taker,
        "n": want.n,
        "at_least": min(want.at_least, want.n),
        "leave_requests": want.leave_requests,
        "leave_instances": want.leave_instances,
        "lag_s": LAG_S,
        "grow_s": GROW_S,
        "patience_s": PATIENCE_S,
        "turn_s": TURN_S,
    }
    row = each.execute(statement, values).one_or_none()
    if row is None:
        _fill(each, name, size)
        row = each.execute(statement, values).one()
    return Grant(row.granted, row.requests, row.instances, row.pace, row.ready_s)


def _fill(each: Connection, name: str, size: Size) -> None:
    """A limit begins full."""
    instances = size.instances.burst if size.instances else 0.0
    values = {"name": name, "burst": size.requests.burst, "instance_burst": instances}
    each.execute(text(_FILL), values)


def touched(each: Connection) -> set[str]:
    """The limits that somebody has taken a token of; all others are full."""
    return set(each.scalars(text("SELECT name FROM rate_limits")))
