"""Claims that keep the concurrency limits: who may start, and who is put aside for what.

Promise: no limit is exceeded, however many schedulers claim, and whatever dies. Of all that is due and
may start the highest priority is dispatched first, then what has waited longest. Whoever may not start
is put aside, once for each limit that keeps it back, and holds up nobody.
Mechanism: one claim at a time counts, until it is committed (`concurrency_limits.count_alone`). It
reads the first of what is due, and of each lane that has room as many as that lets in, lets them in one
by one in the order of dispatch, and writes the slots of those that it dispatches. A job that was put
aside is in the index of its lane and not in that of what is due. Where `jobs` or `instances` are used up
nothing is read at all: nobody could start.
Failure: a rolled back claim has neither dispatched nor put aside anything. One claim reads at most some
`ROUNDS` times what it may dispatch, of what is due and of all lanes together, so that none takes long;
the next one goes on behind that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, text

from atemporal.concurrency import VCPUS, Demand, Place, Room, Rules, is_counted
from atemporal.store import slots
from atemporal.store.due import FROM_POSITION, IN_ORDER, Claimed, Level, claim_these
from atemporal.store.slots import TYPES_ASKED
from atemporal.tables import DISPATCH_AT, PRIORITY

ROUNDS = 5
"""How often a claim reads on that could dispatch nothing so far."""
_LEAST = 50

_COLUMNS = f"""
    CAST(id AS text) AS id, attempt, {PRIORITY} AS priority,
    date_part('epoch', {DISPATCH_AT}) AS at, spec -> 'labels' AS labels, {TYPES_ASKED} AS types
"""
_DUE = text(f"{IN_ORDER} SELECT {_COLUMNS} FROM jobs {FROM_POSITION}")
_WAITING = text(
    f"""
    SELECT lane.name AS lane, waiting.*
    FROM unnest(CAST(:lanes AS text[]), CAST(:rooms AS int[])) AS lane(name, room)
    CROSS JOIN LATERAL (
        SELECT {_COLUMNS} FROM jobs
        WHERE state = 'scheduled' AND waits_for = lane.name
          AND {DISPATCH_AT} <= now() + make_interval(secs => :ahead_s)
        ORDER BY {PRIORITY} DESC, {DISPATCH_AT}, id LIMIT lane.room
        FOR NO KEY UPDATE SKIP LOCKED) AS waiting
    """
)
# Its plan is over: its time has come.
_PUT_ASIDE = text(
    """
    UPDATE jobs SET waits_for = aside.lane, plan_at = NULL
    FROM unnest(CAST(:ids AS uuid[]), CAST(:lanes AS text[])) AS aside(id, lane)
    WHERE jobs.id = aside.id AND state = 'scheduled'
    """
)


class LimitedClaim(NamedTuple):
    """The jobs moved to queued, in order; whether there may be more to do at once, and if not, whether
    nobody may start now, whatever it is."""

    jobs: list[Claimed]
    more: bool = False
    full: bool = False


class _Found(NamedTuple):
    demand: Demand
    attempt: int
    lane: str | None


def claim(
    tx: Connection,
    rules: Rules,
    levels: Sequence[Level],
    *,
    actor: str,
    limit: int,
    ahead_s: float,
    instance_type: str,
) -> LimitedClaim:
    """Dispatch up to `limit` jobs that may start; `levels` are those of the latest survey.

    The caller counts alone. `instance_type` is the type of jobs that name none.
    """
    slots.release(tx)
    room = slots.room(tx, rules, released=True)
    at_most = int(min(limit, room.starts()))
    if at_most <= 0:
        return LimitedClaim([], full=True)
    window = min(limit, 2 * at_most + _LEAST)
    for _ in range(ROUNDS):
        due, more = _due(tx, levels, window, ahead_s)
        waiting, unread = _waiting(tx, room, at_most, limit, ahead_s)
        wait = [_found(row, rules, instance_type, row.lane) for row in waiting]
        free = [_found(row, rules, instance_type, None) for row in due]
        if more:
            # What waits comes after all that is due before it, and not all of that was read.
            last = max(one.demand.place for one in free)
            wait = [one for one in wait if one.demand.place < last]
        if unread is not None:
            # Behind that may be some of a lane that would come before the rest.
            wait = [one for one in wait if one.demand.place <= unread]
            free = [one for one in free if one.demand.place <= unread]
            more = True
        chosen, aside = _choose(room, sorted(wait + free), at_most)
        window = limit
        if aside:
            _put_aside(tx, aside)
        if chosen:
            # Of a lane no more was read than may be dispatched at once.
            more = more or bool(aside) or len(chosen) >= at_most
            return LimitedClaim(_dispatch(tx, chosen, actor=actor), more)
        if not more:
            break
    return LimitedClaim([], more or bool(aside))


def _due(
    tx: Connection, levels: Sequence[Level], window: int, ahead_s: float
) -> tuple[list[Row[Any]], bool]:
    """The first of what is due and was not put aside, and whether there may be more of it."""
    found: list[Row[Any]] = []
    for level in levels:
        if len(found) < window and level.wait_s <= ahead_s:
            given = {
                "priority": level.priority,
                "at": level.position.at,
                "id": level.position.job_id,
                "ahead_s": ahead_s,
                "limit": window - len(found),
            }
            found += tx.execute(_DUE, given).all()
    return found, len(found) >= window


def _waiting(
    tx: Connection, room: Room, at_most: int, limit: int, ahead_s: float
) -> tuple[list[Row[Any]], Place | None]:
    """Of each lane that has room as many as that lets in, the first ones.

    Of very many lanes fewer: then also the first place behind which a lane may have more of them.
    """
    left = {lane: int(min(room.of_lane(lane), at_most)) for lane in slots.lanes(tx)}
    lanes = {lane: many for lane, many in left.items() if many}
    if not lanes:
        return [], None
    each = max(1, ROUNDS * limit // len(lanes))
    rooms = {lane: min(many, each) for lane, many in lanes.items()}
    given = {"lanes": list(rooms), "rooms": list(rooms.values()), "ahead_s": ahead_s}
    found = list(tx.execute(_WAITING, given))
    read = Counter(row.lane for row in found)
    # In order: the last one of a lane counts.
    last = {row.lane: _place(row) for row in found if read[row.lane] == rooms[row.lane]}
    for lane, place in last.items():
        room.read_up_to(lane, place)
    cut = [place for lane, place in last.items() if rooms[lane] < lanes[lane]]
    return found, min(cut, default=None)


def _choose(
    room: Room, found: Sequence[_Found], at_most: int
) -> tuple[list[_Found], list[tuple[_Found, str]]]:
    """Let in whoever may start; who may not, with the lane where that is another than its own."""
    chosen: list[_Found] = []
    aside: list[tuple[_Found, str]] = []
    for one in found:
        lane = room.lane_for(one.demand)
        if lane is not None:
            if lane != one.lane:
                aside.append((one, lane))
        elif len(chosen) < at_most:
            room.take(one.demand)
            chosen.append(one)
    return chosen, aside


def _put_aside(tx: Connection, aside: Sequence[tuple[_Found, str]]) -> None:
    given = {
        "ids": [one.demand.place.job_id for one, _ in aside],
        "lanes": [lane for _, lane in aside],
    }
    tx.execute(_PUT_ASIDE, given)
    types = {name for one, _ in aside for name in one.demand.instance_types}
    if types and any(lane.startswith(VCPUS) for lane in given["lanes"]):
        slots.need_types(tx, types)


def _dispatch(tx: Connection, chosen: Sequence[_Found], *, actor: str) -> list[Claimed]:
    claimed = claim_these(tx, [one.demand.place.job_id for one in chosen], actor=actor)
    there = {one.position.job_id for one in claimed}
    rows: list[Mapping[str, object]] = [
        {
            "name": name,
            "job_id": one.demand.place.job_id,
            "attempt": one.attempt + 1,
            "instance_types": list(one.demand.instance_types) if name == VCPUS else None,
        }
        for one in chosen
        for name in one.demand.names
        if one.demand.place.job_id in there
    ]
    slots.take(tx, rows)
    return claimed


def _found(row: Row[Any], rules: Rules, instance_type: str, lane: str | None) -> _Found:
    labels = row.labels if isinstance(row.labels, dict) else {}
    given = {key: value for key, value in labels.items() if is_counted(value)}
    names = rules.counted(given)
    types = tuple(row.types) or (instance_type,)
    return _Found(Demand(_place(row), names, types if VCPUS in names else ()), row.attempt, lane)


def _place(row: Row[Any]) -> Place:
    return Place(-row.priority, row.at, row.id)
