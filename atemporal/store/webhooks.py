"""Webhooks: made, shown, paused, resumed, tested and deleted by people.

Promise: a change is a fact when it returns. A secret is returned when it is made, and never again. A
webhook hears of what happens after it was made; what happens while it is paused or disabled it hears
when it is resumed, as far as it has not been deleted by then.
Mechanism: a webhook's row is locked by whoever changes it or its deliveries.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, Connection, Row, delete, func, select, text, true, update
from sqlalchemy.dialects.postgresql import insert as pg_insert

from atemporal.errors import Conflict, NotFound, Refused
from atemporal.model.webhook import Tested, Webhook, WebhookSpec
from atemporal.store.horizon import newest
from atemporal.tables import webhook_deliveries as deliveries
from atemporal.tables import webhooks
from atemporal.webhook.signature import SECRET_BYTES, written

MOST = 200
"""So many webhooks there may be: each looks through all events."""
COUNTED = 10_000
"""So many of a webhook's deliveries are counted."""

# For so long the secret before signs as well, so that a receiver can change it whenever it suits him.
LEASE_S = 60.0
"""A delivery that somebody sends is due again after so many seconds."""
_BOTH = timedelta(hours=24)
_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('atemporal.webhooks'))")
ACTIVE: ColumnElement[bool] = webhooks.c.paused_at.is_(None) & webhooks.c.disabled_at.is_(None)
"""Of a webhook's row: that it is sent something."""


@dataclass(frozen=True)
class Page:
    """Webhooks by name, and the name to go on after; None at the end."""

    webhooks: list[Webhook]
    next: str | None


def create(tx: Connection, spec: WebhookSpec) -> tuple[Webhook, str]:
    """Make a webhook; return it and its secret, which can not be read again.

    Raises:
        Conflict: there is one of that name.
        Refused: there are `MOST` already.
    """
    tx.execute(_LOCK)
    if (tx.scalar(select(func.count()).select_from(webhooks)) or 0) >= MOST:
        raise Refused(f"there are {MOST} webhooks, and no more may be: delete one first")
    secret = _new_secret()
    row = {
        "name": spec.name,
        "url": spec.url,
        "labels": dict(spec.labels),
        "types": list(spec.types),
        "secret": secret,
        "position": newest(tx),
    }
    made = tx.execute(pg_insert(webhooks).values(**row).on_conflict_do_nothing())
    if made.rowcount == 0:
        raise Conflict(f"there is a webhook named {spec.name!r}: delete it, or take another name")
    return get(tx, spec.name), secret


def get(tx: Connection, name: str) -> Webhook:
    """Return the webhook of that name.

    Raises:
        NotFound: there is none.
    """
    (found,) = _read(tx, [_row(tx, name)])
    return found


def listing(tx: Connection, *, after: str = "", limit: int) -> Page:
    """Return up to `limit` webhooks by name, from the first one after `after` on."""
    query = select(webhooks).where(webhooks.c.name > after).order_by(webhooks.c.name)
    rows = tx.execute(query.limit(limit + 1)).all()
    page = rows[:limit]
    return Page(_read(tx, page), page[-1].name if len(rows) > limit else None)


def remove(tx: Connection, name: str) -> Webhook:
    """Delete a webhook with its deliveries; return what it was.

    Raises:
        NotFound: there is none of that name.
    """
    lock(tx, name)
    gone = get(tx, name)
    tx.execute(delete(webhooks).where(webhooks.c.id == gone.id))
    return gone


def pause(tx: Connection, name: str) -> Webhook:
    """Send nothing more until `resume`; one that is paused stays so.

    Raises:
        NotFound: there is none of that name.
    """
    row = lock(tx, name)
    if row.paused_at is None:
        _write(tx, row.id, paused_at=func.now())
    return get(tx, name)


def resume(tx: Connection, name: str, *, skip: bool = False) -> Webhook:
    """Send again, at once, what is pending and what has happened; with `skip` what happens from now on.

    Raises:
        NotFound: there is none of that name.
    """
    row = lock(tx, name)
    values: dict[str, Any] = {"paused_at": None, "disabled_at": None, "disabled_why": None}
    # Or the next failure might disable it again.
    values |= {"failures": 0, "failing_since": None}
    # One that is due sooner may be on its way just now, under a lease.
    later = deliveries.c.next_at > func.now() + timedelta(seconds=LEASE_S)
    of_it = deliveries.c.webhook_id == row.id
    tx.execute(update(deliveries).where(of_it, later).values(next_at=func.now()))
    if skip:
        pending = (deliveries.c.webhook_id == row.id) & deliveries.c.dead_at.is_(None)
        tx.execute(delete(deliveries).where(pending))
        values["position"] = newest(tx)
    _write(tx, row.id, **values, try_at=func.now())
    return get(tx, name)


def rotate_secret(tx: Connection, name: str) -> tuple[Webhook, str]:
    """Give it another secret; the one before signs as well for a day.

    Raises:
        NotFound: there is none of that name.
    """
    row = lock(tx, name)
    secret = _new_secret()
    until = func.now() + _BOTH
    _write(tx, row.id, secret=secret, old_secret=row.secret, old_secret_until=until)
    return get(tx, name), secret


def ask_test(tx: Connection, name: str) -> Webhook:
    """Ask for a test event to be sent, also to one that is paused or disabled.

    Each scheduler sends it, with the same id, until the first has noted what came of it.

    Raises:
        NotFound: there is none of that name.
    """
    row = lock(tx, name)
    nothing = {"test_accepted": None, "test_result": None, "tested_at": None}
    _write(tx, row.id, test_id=uuid4(), **nothing)
    return get(tx, name)


def tested(tx: Connection, test_id: UUID, *, accepted: bool, result: str) -> None:
    """Note what came of a test, unless another has been asked for."""
    tx.execute(
        update(webhooks)
        .where(webhooks.c.test_id == test_id)
        .values(test_accepted=accepted, test_result=result, tested_at=func.now())
    )


def lock(tx: Connection, name: str) -> Row[Any]:
    """Lock and return the row of the webhook of that name.

    Raises:
        NotFound: there is none.
    """
    return _row(tx, name, locked=True)


def count(tx: Connection, webhook_id: UUID, *, dead: bool) -> int:
    """Count a webhook's deliveries, those to come or those given up, up to `COUNTED`."""
    over = deliveries.c.dead_at.is_not(None) if dead else deliveries.c.dead_at.is_(None)
    some = select(true()).where(deliveries.c.webhook_id == webhook_id, over).limit(COUNTED)
    return tx.scalar(select(func.count()).select_from(some.subquery())) or 0


def any_there(tx: Connection) -> bool:
    """Tell whether there is any webhook."""
    return tx.scalar(select(true()).select_from(webhooks).limit(1)) is not None


def disabled(tx: Connection) -> int:
    """How many webhooks are disabled."""
    query = select(func.count()).select_from(webhooks).where(webhooks.c.disabled_at.is_not(None))
    return tx.scalar(query) or 0


def oldest_pending_s(tx: Connection) -> float:
    """Seconds since the oldest event that an active webhook has not delivered; 0 without any."""
    first = _oldest(webhooks.c.id)
    query = select(func.max(func.extract("epoch", func.now() - first))).where(ACTIVE)
    return float(tx.scalar(query) or 0.0)


def _row(tx: Connection, name: str, *, locked: bool = False) -> Row[Any]:
    query = select(webhooks).where(webhooks.c.name == name)
    row = tx.execute(query.with_for_update() if locked else query).one_or_none()
    if row is None:
        raise NotFound(f"there is no webhook named {name!r}")
    return row


def _read(tx: Connection, rows: Iterable[Row[Any]]) -> list[Webhook]:
    return [_webhook(tx, row) for row in rows]


def _webhook(tx: Connection, row: Row[Any]) -> Webhook:
    fields = {name: getattr(row, name, None) for name in Webhook.model_fields}
    fields |= {
        "pending": count(tx, row.id, dead=False),
        "failed": count(tx, row.id, dead=True),
        "oldest_pending_at": tx.scalar(select(_oldest(row.id))),
        "tested": None
        if row.test_id is None
        else Tested(
            id=row.test_id, accepted=row.test_accepted, result=row.test_result, at=row.tested_at
        ),
    }
    return Webhook.model_validate(fields)


def _oldest(webhook_id: Any) -> Any:
    """When the oldest pending event happened: it is the first of its job."""
    first = (deliveries.c.webhook_id == webhook_id) & deliveries.c.next_at.is_not(None)
    query = select(func.min(deliveries.c.at)).where(first)
    return query.correlate(webhooks).scalar_subquery()


def _write(tx: Connection, webhook_id: UUID, **values: Any) -> None:
    of_it = webhooks.c.id == webhook_id
    tx.execute(update(webhooks).where(of_it).values(**values, updated_at=func.now()))


def _new_secret() -> str:
    return written(secrets.token_bytes(SECRET_BYTES))
