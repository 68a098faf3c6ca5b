"""Dead letters on the wire: how a reader's copy is made, how any letter is read, how one is sent again.

Promise: whatever lies in the queue of the dead letters is read, whoever put it there: a reader of ours,
which says why in headers; the broker, whose history is in the header `x-death`; anybody else.
Mechanism: a copy has the headers and properties of the message that died as JSON in one header, where
the broker does not act on them (`CC` would send the copy elsewhere). A replay goes to the queue that the
message died in and to no other, without the headers: no reader needs one. Two of ours are added, so that
it names its letter if it dies again.
Failure: none. What can not be read is left out of the letter, or shown as text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from hashlib import sha256
from math import isfinite
from typing import Any, NamedTuple
from uuid import UUID

from pydantic import ValidationError

from atemporal.broker.envelope import DIRECT_REPLY_TO, Delivery, Outgoing
from atemporal.broker.topology import DEAD
from atemporal.messages import BODY_LIMIT, MESSAGES
from atemporal.model.dead_letter import DeadLetter, DeadReason, Death, RecordedLetter
from atemporal.model.text import escaped

REASON_HEADER = "x-atemporal-reason"
ROUTING_KEY_HEADER = "x-atemporal-routing-key"
REPLAY_OF_HEADER = "x-atemporal-replay-of"
_CAUSE, _ERRORS, _QUEUE = "x-atemporal-cause", "x-atemporal-errors", "x-atemporal-queue"
_EXCHANGE, _DEAD_AT = "x-atemporal-exchange", "x-atemporal-dead-at"
_PROPERTIES, _HISTORY = "x-atemporal-properties", "x-death"

# All headers of a message have to go into one frame, of 128 KiB mostly.
_COPIED = 16_384
_KEPT = 65_536
_REASON, _NAME = 1000, 200
_DEEPEST = 8
# AMQP's limit for an id, in bytes.
_SHORT = 255

_SHOWN = (
    *("content_type", "content_encoding", "delivery_mode", "priority", "expiration", "timestamp"),
    *("type", "user_id", "app_id", "cluster_id"),
)
_QUEUE_OF = {kind.type_name(): str(kind.queue) for kind in MESSAGES if kind.queue is not None}
_BY_BROKER: Mapping[str, str] = {
    DeadReason.DELIVERY_LIMIT: "it was delivered too often: its readers died, or gave it back",
    DeadReason.REJECTED: "a reader rejected it",
    DeadReason.EXPIRED: "it was in its queue for longer than it may be",
    DeadReason.MAXLEN: "its queue was full",
}


def copy_of(
    delivery: Delivery, reason: str, errors: Mapping[str, str], *, queue: str, at: datetime
) -> Outgoing:
    """Make the copy of a message that a reader of `queue` could not use, for the dead letters."""
    cause = DeadReason.INVALID if delivery.unreadable is None else DeadReason.UNREADABLE
    return Outgoing(
        routing_key=DEAD,
        body=delivery.body,
        message_id=delivery.message_id or "",
        exchange="",
        headers={
            REASON_HEADER: reason[:_REASON],
            _CAUSE: cause,
            _ERRORS: _some(errors),
            _QUEUE: queue,
            _EXCHANGE: delivery.exchange,
            ROUTING_KEY_HEADER: delivery.routing_key,
            _DEAD_AT: at.isoformat(),
            _PROPERTIES: json.dumps(_bounded(_properties(delivery), _COPIED)),
        },
        correlation_id=delivery.correlation_id,
        reply_to=delivery.reply_to,
    )


def _some(errors: Mapping[str, str]) -> str:
    """As many of the errors as may be in a header; the first ones, each cut where it is long."""
    written = "{}"
    some: dict[str, str] = {}
    for name, why in errors.items():
        some[name[:_NAME]] = why[:_REASON]
        longer = json.dumps(some)
        if len(longer) > _COPIED:
            break
        written = longer
    return written


def read(delivery: Delivery) -> DeadLetter:
    """Read what came off the queue of the dead letters."""
    properties = _properties(delivery)
    deaths = _deaths(properties["headers"])
    identity = [delivery.message_id, delivery.correlation_id, delivery.reply_to]
    ours = {
        name: value
        for name, value in properties["headers"].items()
        if name == _HISTORY or name.startswith("x-atemporal-")
    }
    digest = sha256(json.dumps([identity, ours], sort_keys=True).encode() + delivery.body)
    # Only the broker puts its history beside the headers: in a copy of ours it is within.
    account = _by_broker(deaths) if deaths else _by_reader(delivery, properties["headers"])
    original = properties if account.original is None else account.original
    headers = original["headers"]
    routing_key = account.routing_key
    if account.exchange == "":
        # A replay goes to its queue by name; what it was first, it says.
        routing_key = _text(headers, ROUTING_KEY_HEADER) or routing_key
    return DeadLetter(
        queue=_name(account.queue),
        exchange=_name(account.exchange),
        routing_key=_name(routing_key),
        message_id=_escaped(delivery.message_id),
        correlation_id=_escaped(delivery.correlation_id),
        reply_to=_escaped(delivery.reply_to),
        reason=account.reason,
        detail=account.detail,
        errors=account.errors,
        deaths=deaths or _deaths(headers),
        properties=_bounded(original, _KEPT),
        dead_at=account.dead_at,
        body=delivery.body[:BODY_LIMIT],
        body_size=len(delivery.body),
        replay_of=_id(_text(headers, REPLAY_OF_HEADER)),
        digest=digest.hexdigest(),
        redelivered=delivery.redelivered,
    )


def again(letter: RecordedLetter) -> Outgoing:
    """Make the message of a letter's replay: the same body and ids, for the queue it came from.

    One without an id gets the letter's, so that all its copies are one job. An asker who waited for a
    direct reply has long gone.
    """
    reply_to = letter.reply_to
    if reply_to and (reply_to.startswith(DIRECT_REPLY_TO) or not _fits(reply_to)):
        reply_to = None
    message_id, correlation_id = letter.message_id, letter.correlation_id
    return Outgoing(
        routing_key=letter.queue or "",
        body=letter.body or b"",
        message_id=message_id if message_id and _fits(message_id) else letter.replay_id,
        exchange="",
        headers={
            REPLAY_OF_HEADER: str(letter.id),
            ROUTING_KEY_HEADER: letter.routing_key or letter.queue or "",
        },
        correlation_id=correlation_id if correlation_id and _fits(correlation_id) else None,
        reply_to=reply_to,
    )


class _Account(NamedTuple):
    """What is known of a death; `original` are the properties of the message in a reader's copy."""

    reason: DeadReason
    detail: str
    queue: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    dead_at: datetime | None = None
    errors: Mapping[str, str] = {}
    original: Mapping[str, Any] | None = None


def _by_reader(delivery: Delivery, headers: Mapping[str, Any]) -> _Account:
    """What a reader of ours says in its copy; one of the release before says less."""
    if delivery.unreadable is not None:
        return _Account(DeadReason.UNREADABLE, escaped(delivery.unreadable))
    detail = _text(headers, REASON_HEADER)
    if detail is None:
        return _Account(DeadReason.UNKNOWN, "nothing in it says why it is here")
    unreadable = _text(headers, _CAUSE) == DeadReason.UNREADABLE
    routing_key = _text(headers, ROUTING_KEY_HEADER)
    original = _object(headers, _PROPERTIES)
    within = original.get("headers")
    return _Account(
        DeadReason.UNREADABLE if unreadable else DeadReason.INVALID,
        detail,
        queue=_text(headers, _QUEUE) or _QUEUE_OF.get(routing_key or ""),
        exchange=_text(headers, _EXCHANGE),
        routing_key=routing_key,
        dead_at=_time(headers.get(_DEAD_AT)),
        errors={name: str(why) for name, why in _object(headers, _ERRORS).items()},
        original={**original, "headers": within if isinstance(within, dict) else {}},
    )


def _by_broker(deaths: tuple[Death, ...]) -> _Account:
    """What the broker says: the latest death comes first."""
    death = deaths[0]
    known = death.reason in set(DeadReason)
    return _Account(
        DeadReason(death.reason) if known else DeadReason.UNKNOWN,
        _BY_BROKER.get(death.reason, f"the broker gave it up: {death.reason}"),
        queue=death.queue,
        exchange=death.exchange,
        routing_key=death.routing_keys[0] if death.routing_keys else None,
        dead_at=death.time,
    )


def _deaths(headers: Mapping[str, Any]) -> tuple[Death, ...]:
    history = headers.get(_HISTORY)
    found: list[Death] = []
    for entry in history if isinstance(history, list) else ():
        given = entry if isinstance(entry, dict) else {}
        keys = given.get("routing-keys")
        try:
            death = Death(
                queue=given.get("queue", ""),
                reason=given.get("reason", ""),
                count=given.get("count", 1),
                time=_time(given.get("time")),
                exchange=given.get("exchange", ""),
                routing_keys=tuple(keys) if isinstance(keys, list) else (),
            )
        except ValidationError:
            continue
        found.append(death)
    return tuple(found)


def _properties(delivery: Delivery) -> dict[str, Any]:
    shown = {
        name: plain(delivery.properties[name]) for name in _SHOWN if name in delivery.properties
    }
    headers = plain(delivery.headers)
    return {**shown, "headers": headers if isinstance(headers, dict) else {}}


def _bounded(properties: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """The properties, without the headers if they are too long together, in characters of JSON."""
    size = len(json.dumps(properties))
    if size <= limit:
        return dict(properties)
    few = {
        name: value
        for name, value in properties.get("headers", {}).items()
        if name in (REPLAY_OF_HEADER, ROUTING_KEY_HEADER)
    }
    return {"headers": few, "left_out": f"the other headers: {size} characters"}


def plain(value: Any, depth: int = 0) -> Any:
    """A value of AMQP's tables as JSON and Postgres can hold it; what they can not is text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return escaped(bytes(value).decode(errors="backslashreplace"))
    if isinstance(value, datetime):
        # AMQP's times are in UTC, and py-amqp gives them without a zone.
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
    if isinstance(value, date | Decimal):
        return str(value)
    if depth >= _DEEPEST:
        return "…"
    if isinstance(value, Mapping):
        return {escaped(str(name)): plain(one, depth + 1) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one, depth + 1) for one in value]
    return escaped(str(value))


def _name(text: str | None) -> str | None:
    """The name of a queue, an exchange or a routing key: AMQP has none that is longer."""
    return None if text is None else text[:_SHORT]


def _escaped(text: str | None) -> str | None:
    return None if text is None else escaped(text)


def _text(headers: Mapping[str, Any], name: str) -> str | None:
    value = headers.get(name)
    return value if isinstance(value, str) else None


def _object(headers: Mapping[str, Any], name: str) -> dict[str, Any]:
    try:
        value = plain(json.loads(_text(headers, name) or "{}"))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _time(value: Any) -> datetime | None:
    try:
        at = datetime.fromisoformat(value)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None


def _id(text: str | None) -> UUID | None:
    try:
        return UUID(text or "")
    except ValueError:
        return None


def _fits(text: str) -> bool:
    return len(text.encode()) <= _SHORT
