"""Dead letters as they come off their queue, made by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from kombu.message import Message

from atemporal.broker import DEAD, Delivery, Outgoing
from atemporal.broker.dead_letters import copy_of, read
from atemporal.messages import SUBMIT
from atemporal.model.dead_letter import DeadLetter

DIED = datetime(2030, 4, 25, 5, 27, 27, 123456, tzinfo=UTC)


def delivery(body: bytes = b"{}", **fields: Any) -> Delivery:
    """A delivery of what other systems publish."""
    given = {
        "message_id": None,
        "reply_to": None,
        "correlation_id": None,
        "routing_key": "job.submit",
        "exchange": "atemporal",
        "handle": Message(body),
        **fields,
    }
    return Delivery(body=body, **given)


def delivered(out: Outgoing, **fields: Any) -> Delivery:
    """What a publish arrives as."""
    given = {
        "message_id": out.message_id or None,
        "reply_to": out.reply_to,
        "correlation_id": out.correlation_id,
        "routing_key": out.routing_key,
        "exchange": out.exchange,
        "headers": out.headers,
        **fields,
    }
    return delivery(out.body, **given)


def refused(
    body: bytes = b"{}",
    errors: dict[str, str] | None = None,
    *,
    queue: str = SUBMIT,
    redelivered: bool = False,
    died: datetime = DIED,
    **fields: Any,
) -> DeadLetter:
    """A letter whose message a reader has refused."""
    wrong = {"image": "is none"} if errors is None else errors
    reason = "; ".join(f"{name}: {why}" for name, why in wrong.items())
    copy = copy_of(delivery(body, **fields), reason, wrong, queue=queue, at=died)
    return read(delivered(copy, redelivered=redelivered))


def by_broker(reason: str, queue: str, body: bytes = b"{}", **fields: Any) -> DeadLetter:
    """A letter that the broker itself has made."""
    history = [
        {
            "queue": queue,
            "reason": reason,
            "count": 1,
            "time": DIED.replace(tzinfo=None, microsecond=0),
            "exchange": "atemporal",
            "routing-keys": ["job.submit"],
        }
    ]
    given = {"headers": {"x-death": history}, "routing_key": DEAD, "exchange": "", **fields}
    return read(delivery(body, **given))
