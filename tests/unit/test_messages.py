"""Messages: what is written today can be read tomorrow, and what is none is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args, get_type_hints
from uuid import UUID

import pytest

from atemporal import messages
from atemporal.broker import QUEUES as DECLARED
from atemporal.broker import Outgoing
from atemporal.errors import Invalid
from atemporal.messages import (
    COMMANDS,
    EVENTS,
    INTERNAL,
    LAUNCH,
    MESSAGES,
    REAP,
    SCHEDULE,
    SUBMIT,
    JobEvent,
    Notification,
    Queue,
    SubmitReply,
    decode,
    encode,
)
from atemporal.model import AttemptRef

GOLDEN = Path(__file__).with_name("messages")
JOB = UUID("01900000-0000-7000-8000-000000000001")
QUEUES: tuple[Queue[Any], ...] = (SUBMIT, SCHEDULE, LAUNCH, REAP)
NOTIFICATIONS = {
    kind.type_name(): kind for kind in MESSAGES if issubclass(kind, Notification) and kind.queue
}


def recorded(pattern: str) -> list[Path]:
    return sorted(GOLDEN.glob(pattern))


@pytest.mark.parametrize("path", recorded("notification.*.json"), ids=lambda path: path.stem)
def test_a_recorded_notification_is_still_read(path: Path) -> None:
    record = json.loads(path.read_text())
    kind = NOTIFICATIONS[record["type"]]
    assert kind.queue is not None
    message = decode(kind.queue, path.read_bytes())
    assert type(message) is kind
    assert message.ref == AttemptRef(JOB, 2)
    again = json.loads(encode(message))
    assert again == {name: value for name, value in record.items() if name in again}


def test_there_is_a_record_of_every_notification() -> None:
    types = {json.loads(path.read_text())["type"] for path in recorded("notification.*.json")}
    assert types == set(NOTIFICATIONS)


@pytest.mark.parametrize("path", recorded("submit.*.json"), ids=lambda path: path.stem)
def test_a_recorded_submit_is_still_read(path: Path) -> None:
    assert decode(SUBMIT, path.read_bytes()).job["image"] == "nginx:1.9"


@pytest.mark.parametrize("queue", QUEUES)
def test_the_type_of_a_queue_is_the_union_of_its_messages(queue: Queue[Any]) -> None:
    """Otherwise the type checker would not find a reader that forgets one."""
    hints = get_type_hints(messages)
    (name,) = (
        name
        for name in ("SUBMIT", "SCHEDULE", "LAUNCH", "REAP")
        if getattr(messages, name) == queue
    )
    (union,) = get_args(hints[name])
    assert set(get_args(union) or (union,)) == set(queue.types)


def test_every_message_with_a_queue_is_bound_to_it_by_its_type() -> None:
    bound = {
        (queue.exchange.name, queue.routing_key, queue.name)
        for queue in DECLARED
        if queue.exchange.name
    }
    assert bound == {
        (kind.exchange, kind.type_name(), kind.queue) for kind in MESSAGES if kind.queue
    }


def test_commands_notifications_and_events_have_an_exchange_each() -> None:
    by_exchange = {
        exchange: {kind.type_name() for kind in MESSAGES if kind.exchange == exchange}
        for exchange in (COMMANDS, EVENTS)
    }
    assert by_exchange[COMMANDS] == {
        "job.submit",
        *(f"schedule.{what}" for what in ("put", "pause", "resume", "run", "delete")),
    }
    assert [kind for kind in MESSAGES if kind.exchange == EVENTS] == [JobEvent]
    assert all(kind.exchange == INTERNAL for kind in NOTIFICATIONS.values())
    assert "env" not in str(JobEvent.model_json_schema()["properties"].keys())


@pytest.mark.parametrize("kind", NOTIFICATIONS.values(), ids=NOTIFICATIONS)
def test_a_notification_goes_out_under_its_type_and_must_arrive(kind: type[Notification]) -> None:
    message = kind.of(AttemptRef(JOB, 2))
    out = Outgoing.of(message)
    assert (out.routing_key, out.mandatory, out.exchange) == (message.type, True, INTERNAL)
    assert out.message_id == f"{JOB}.2.{message.type.split('.')[1]}"


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"{",
        b"null",
        b"[]",
        b"{}",
        b'{"type":"job.due"}',
        b'{"type":["job.due"],"job":{}}',
        b'{"v":1,"job_id":"%s","attempt":1}' % str(JOB).encode(),
        b'{"type":"job.due","v":2,"job_id":"%s","attempt":1}' % str(JOB).encode(),
        b'{"type":"job.done","v":1,"job_id":"%s","attempt":1}' % str(JOB).encode(),
        b"[" * 100_000,
        b'"' + b"x" * messages.BODY_LIMIT + b'"',
    ],
)
def test_what_is_no_message_is_refused(queue: Queue[Any], body: bytes) -> None:
    with pytest.raises(Invalid):
        decode(queue, body)


@pytest.mark.parametrize("kind", NOTIFICATIONS.values(), ids=NOTIFICATIONS)
def test_a_message_of_another_queue_is_refused_by_name(kind: type[Notification]) -> None:
    body = encode(kind.of(AttemptRef(JOB, 2)))
    for queue in QUEUES:
        if queue != kind.queue:
            with pytest.raises(
                Invalid, match=f"'{kind.type_name()}' does not belong into {queue}"
            ):
                decode(queue, body)


def test_a_reply_can_be_sent_whatever_it_repeats() -> None:
    # Valid JSON can hold half of a surrogate pair, which is no text.
    with pytest.raises(Invalid) as refused:
        decode(SUBMIT, rb'{"type": "\ud800", "job": {}}')
    reply = SubmitReply(
        status="rejected", errors={**refused.value.fields, "\udfff": "unknown field"}
    )
    errors = json.loads(encode(reply))["errors"]
    assert "ud800" in errors["type"]
    assert errors["\\udfff"] == "unknown field"
