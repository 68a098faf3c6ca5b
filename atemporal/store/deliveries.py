"""Deliveries: the events on their way to the receivers of webhooks.

Promise: each event that a webhook wants becomes one delivery, which stays until its receiver has
accepted it or it was given up; one that was given up stays as well, to be sent again by a person. Of
each job one delivery at a time is on its way to a receiver: the first, behind which the others wait.
Mechanism: a webhook's `position` grows over the history, up to the horizon, in the transaction that
makes the deliveries. A claim sets a delivery's time ahead by a lease, so a process that dies costs time
only. The webhook's row is locked by whoever makes or settles deliveries, so which one is the first is
decided by one at a time; a unique index says the same.
Failure: while `MOST_PENDING` deliveries wait, no more are made: the history keeps the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Connection,
    Row,
    Uuid,
    cast,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    update,
)

from atemporal.event_types import EVENT_TYPES
from atemporal.messages import JobEvent, encode
from atemporal.model.webhook import Delivery, Receiver, Sent
from atemporal.store import events, webhooks
from atemporal.store.events import Wanted
from atemporal.tables import webhook_deliveries as deliveries
from atemporal.tables import webhooks as table
from atemporal.webhook import retry as rules

BATCH = 500
MOST_PENDING = 10_000
"""So many deliveries of one webhook wait at most; further events wait in the history."""
RUN = 10
"""So many of one job are claimed at once, to be sent one after the other."""

_NOW = text("SELECT clock_timestamp()")
_RUNS = text(
    """
    SELECT first.* FROM unnest(CAST(:jobs AS uuid[])) AS claimed (job_id) CROSS JOIN LATERAL (
        SELECT * FROM webhook_deliveries
        WHERE webhook_id = :webhook AND job_id = claimed.job_id AND dead_at IS NULL
        ORDER BY event_id LIMIT :run) AS first
    ORDER BY first.job_id, first.event_id
    """
)
# The first pending delivery of each job goes next: now, or after the pause that its failure calls for.
_SET_FIRST = text(
    """
    UPDATE webhook_deliveries SET next_at = now() + make_interval(secs => coalesce(pauses.seconds, 0))
    FROM unnest(CAST(:jobs AS uuid[])) AS settled (job_id)
    CROSS JOIN LATERAL (
        SELECT event_id FROM webhook_deliveries
        WHERE webhook_id = :webhook AND job_id = settled.job_id AND dead_at IS NULL
        ORDER BY event_id LIMIT 1) AS first
    LEFT JOIN unnest(CAST(:failed AS bigint[]), CAST(:pauses AS float[])) AS pauses (event_id, seconds)
        ON pauses.event_id = first.event_id
    WHERE webhook_id = :webhook AND webhook_deliveries.event_id = first.event_id
      AND NOT EXISTS (
        SELECT 1 FROM webhook_deliveries AS other
        WHERE other.webhook_id = :webhook AND other.job_id = settled.job_id
          AND other.next_at IS NOT NULL)
    """
)


@dataclass(frozen=True)
class Made:
    """Whose deliveries one pass over the history made; `more`: the next pass may make more."""

    webhook_id: UUID
    more: bool


@dataclass(frozen=True)
class Settled:
    """What was given up, and why the webhook of that name was disabled, if it was."""

    name: str = ""
    given_up: Sequence[int] = ()
    disabled: str | None = None


def make(tx: Connection, *, upto: int, but: Collection[UUID] = ()) -> Made | None:
    """Make the next deliveries of one webhook; None when all have those up to the horizon.

    Webhooks that somebody else has locked are passed over, and those in `but`.
    """
    behind = select(table).where(
        webhooks.ACTIVE, table.c.position < upto, table.c.id.not_in(list(but))
    )
    row = tx.execute(
        behind.order_by(table.c.position).limit(1).with_for_update(skip_locked=True)
    ).one_or_none()
    if row is None:
        return None
    room = MOST_PENDING - webhooks.count(tx, row.id, dead=False)
    if room <= 0:
        return Made(row.id, False)
    wanted = Wanted(labels=row.labels, types=_types(row.types))
    page = events.page(tx, wanted, after=row.position, upto=upto, limit=min(BATCH, room))
    _insert(tx, row.id, [JobEvent.of(event) for event in page.events])
    tx.execute(update(table).where(table.c.id == row.id).values(position=page.next))
    return Made(row.id, page.more)


def receivers(tx: Connection) -> list[Receiver]:
    """Who may be sent something now: what is due, or a test."""
    due = (
        select(literal(1))
        .where(deliveries.c.webhook_id == table.c.id, deliveries.c.next_at <= func.now())
        .correlate(table)
        .exists()
    )
    test = table.c.test_id.is_not(None) & table.c.tested_at.is_(None)
    ready = webhooks.ACTIVE & (table.c.try_at <= func.now()) & due
    found = tx.execute(
        select(table, ready.label("ready"), test.label("test"), func.now().label("read_at"))
        .where(or_(ready, test))
        .order_by(table.c.try_at)
    )
    return [_receiver(row) for row in found]


def claim(
    tx: Connection, receiver: Receiver, *, limit: int, lease_s: float
) -> list[list[Delivery]]:
    """Claim the deliveries of up to `limit` jobs, each job's in order; nobody else gets them meanwhile.

    After `lease_s` seconds without `settle` they are due again.
    """
    of_it = deliveries.c.webhook_id == receiver.webhook_id
    may = select(literal(1)).where(
        table.c.id == receiver.webhook_id, webhooks.ACTIVE, table.c.try_at <= func.now()
    )
    due = (
        select(deliveries.c.event_id)
        .where(of_it, deliveries.c.next_at <= func.now(), may.exists())
        .order_by(deliveries.c.next_at, deliveries.c.event_id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")
        .prefix_with("MATERIALIZED")
    )
    jobs = list(
        tx.scalars(
            update(deliveries)
            .where(of_it, deliveries.c.event_id.in_(select(due.c.event_id)))
            .values(next_at=func.now() + timedelta(seconds=lease_s))
            .returning(deliveries.c.job_id)
        )
    )
    if not jobs:
        return []
    given = {"webhook": receiver.webhook_id, "jobs": [str(job) for job in jobs], "run": RUN}
    runs: dict[UUID, list[Delivery]] = {}
    for row in tx.execute(_RUNS, given):
        runs.setdefault(row.job_id, []).append(_delivery(row))
    return list(runs.values())


def settle(tx: Connection, webhook_id: UUID, sent: Sequence[Sent], *, chance: float) -> Settled:
    """Write down what became of deliveries: accepted ones are over, others are tried again or given up.

    `chance`, from 0 to 1, spreads the retries. A webhook that was deleted meanwhile has none any more.
    """
    row = tx.execute(select(table).where(table.c.id == webhook_id).with_for_update()).one_or_none()
    if row is None or not sent:
        return Settled()
    accepted = [one.event_id for one in sent if one.accepted]
    failed = {one.event_id: one for one in sent if not one.accepted}
    of_it = deliveries.c.webhook_id == webhook_id
    tx.execute(
        delete(deliveries).where(of_it, deliveries.c.event_id == func.any(_numbers(accepted)))
    )
    pauses, given_up = _count_failures(tx, webhook_id, failed, chance)
    jobs = list({one.job_id for one in sent})
    tx.execute(
        update(deliveries)
        .where(of_it, deliveries.c.job_id == func.any(_ids(jobs)))
        .where(deliveries.c.next_at.is_not(None))
        .values(next_at=None)
    )
    _set_first(tx, webhook_id, jobs, pauses)
    return Settled(
        row.name, given_up, _tell_webhook(tx, row, accepted, list(failed.values()), chance)
    )


def failed(tx: Connection, name: str, *, after: int = 0, limit: int) -> list[Delivery]:
    """The deliveries of a webhook that were given up, by their events' numbers.

    Raises:
        NotFound: there is no webhook of that name.
    """
    webhook = webhooks.get(tx, name)
    over = (deliveries.c.webhook_id == webhook.id) & deliveries.c.dead_at.is_not(None)
    query = select(deliveries).where(over, deliveries.c.event_id > after)
    return [
        _delivery(row) for row in tx.execute(query.order_by(deliveries.c.event_id).limit(limit))
    ]


def retry(tx: Connection, name: str, event_ids: Sequence[int] | None = None) -> int:
    """Send again what was given up, or of that these events; return how many deliveries that are.

    Raises:
        NotFound: there is no webhook of that name.
    """
    row = webhooks.lock(tx, name)
    over = (deliveries.c.webhook_id == row.id) & deliveries.c.dead_at.is_not(None)
    if event_ids is not None:
        over &= deliveries.c.event_id == func.any(_numbers(event_ids))
    jobs = list(
        tx.scalars(
            update(deliveries)
            .where(over)
            .values(dead_at=None, failures=0)
            .returning(deliveries.c.job_id)
        )
    )
    _set_first(tx, row.id, list(set(jobs)), {})
    return len(jobs)


def _insert(tx: Connection, webhook_id: UUID, made: Sequence[JobEvent]) -> None:
    if not made:
        return
    waiting = (
        select(deliveries.c.job_id)
        .where(deliveries.c.webhook_id == webhook_id, deliveries.c.next_at.is_not(None))
        .where(deliveries.c.job_id == func.any(_ids([event.job_id for event in made])))
    )
    known = set(tx.scalars(waiting))
    now = tx.execute(_NOW).scalar_one()
    rows = []
    for event in made:
        rows.append(
            {
                "webhook_id": webhook_id,
                "event_id": event.event_id,
                "job_id": event.job_id,
                "type": event.type,
                "at": event.at,
                "body": encode(event).decode(),
                "next_at": None if event.job_id in known else now,
            }
        )
        known.add(event.job_id)
    tx.execute(insert(deliveries), rows)


def _count_failures(
    tx: Connection, webhook_id: UUID, failed: Mapping[int, Sent], chance: float
) -> tuple[dict[int, float], list[int]]:
    """Count a failure of each; return the seconds until the next try of each, and what is given up."""
    of_it = deliveries.c.webhook_id == webhook_id
    known = tx.execute(
        select(deliveries.c.event_id, deliveries.c.failures).where(
            of_it, deliveries.c.event_id == func.any(_numbers(failed))
        )
    ).all()
    pauses: dict[int, float] = {}
    given_up: list[int] = []
    for event_id, before in known:
        pause = rules.pause_s(before + 1, chance)
        if pause is None:
            given_up.append(event_id)
        else:
            pauses[event_id] = pause
        tx.execute(
            update(deliveries)
            .where(of_it, deliveries.c.event_id == event_id)
            .values(
                failures=before + 1,
                last_error=failed[event_id].error,
                next_at=None,
                dead_at=func.now() if pause is None else None,
            )
        )
    return pauses, given_up


def _set_first(
    tx: Connection, webhook_id: UUID, jobs: Sequence[UUID], pauses: Mapping[int, float]
) -> None:
    if jobs:
        given = {
            "webhook": webhook_id,
            "jobs": [str(job) for job in jobs],
            "failed": list(pauses),
            "pauses": list(pauses.values()),
        }
        tx.execute(_SET_FIRST, given)


def _tell_webhook(
    tx: Connection, row: Row[Any], accepted: Sequence[int], failed: Sequence[Sent], chance: float
) -> str | None:
    """Write down how the receiver fares; return why the webhook is disabled from now on, if it is."""
    now: datetime = tx.execute(_NOW).scalar_one()
    values: dict[str, Any] = {}
    if failed:
        values |= {"last_error": failed[-1].error, "last_error_at": now}
    if row.old_secret_until is not None and row.old_secret_until < now:
        values |= {"old_secret": None, "old_secret_until": None}
    why: str | None = None
    asked_s = max((one.asked_s for one in failed), default=0.0)
    if accepted:
        values |= {"failures": 0, "failing_since": None, "accepted_at": now}
        rest_s = rules.rest_s(0, chance, asked_s=asked_s)
    else:
        since = row.failing_since
        # What was not tried for so long has not failed meanwhile.
        if since is None or (now - row.last_error_at).total_seconds() > rules.IDLE_S:
            since = now
        failures = row.failures + len(failed)
        rest_s = rules.rest_s(failures, chance, asked_s=asked_s)
        values |= {"failures": failures, "failing_since": since}
        if (now - since).total_seconds() > rules.DISABLED_AFTER_S:
            why = f"nothing was accepted since {since:%Y-%m-%d %H:%M} UTC: {failed[-1].error}"
    # What it asked for beside one that it accepted holds: only its own failures are forgotten.
    asked = row.try_at if row.failures < rules.PATIENT else now
    values["try_at"] = max(asked, now + timedelta(seconds=rest_s))
    if any(one.unwanted for one in failed):
        why = "the receiver answers 410: it wants no more"
    if why is not None and row.disabled_at is None:
        values |= {"disabled_at": now, "disabled_why": why}
    else:
        why = None
    tx.execute(update(table).where(table.c.id == row.id).values(**values))
    return why


def _numbers(event_ids: Iterable[int]) -> Any:
    return cast(literal(list(event_ids), ARRAY(BigInteger)), ARRAY(BigInteger))


def _ids(job_ids: Iterable[UUID]) -> Any:
    return cast(literal(list(job_ids), ARRAY(Uuid)), ARRAY(Uuid))


def _types(stored: Sequence[str]) -> tuple[str, ...]:
    """The whole types that are meant; one that only another release knows means none of ours."""
    return tuple(
        name for name in EVENT_TYPES if any(f"{name}.".startswith(f"{one}.") for one in stored)
    ) or tuple(stored)


def _receiver(row: Row[Any]) -> Receiver:
    both = row.old_secret_until is not None and row.old_secret_until > row.read_at
    return Receiver(
        webhook_id=row.id,
        name=row.name,
        url=row.url,
        secrets=(row.secret, row.old_secret) if both else (row.secret,),
        failures=row.failures,
        ready=row.ready,
        test_id=row.test_id if row.test else None,
    )


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery.model_validate({name: getattr(row, name) for name in Delivery.model_fields})
