"""The examples of the AsyncAPI document: bodies as other systems would write and read them.

Promise: each is valid by its schema and is read by its class (`tests/unit/test_asyncapi.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atemporal.messages import JobSubmit, Message, SchedulePut, ScheduleReply, SubmitReply

_ID = "01900000-0000-7000-8000-000000000001"
_AT = "2030-04-25T05:27:27.069Z"


def _example(
    name: str, summary: str, payload: Mapping[str, Any], **headers: str
) -> dict[str, Any]:
    example: dict[str, Any] = {"name": name, "summary": summary, "payload": dict(payload)}
    return {**example, "headers": headers} if headers else example


def submits() -> list[dict[str, Any]]:
    """Of `job.submit`."""
    kind = {"type": JobSubmit.type_name(), "v": 1}
    nightly = {
        "image": "ghcr.io/acme/report:2",
        "command": ["report", "--day", "2030-04-24"],
        "env": {"NAME": "bond, james bond!"},
        "time": _AT,
        "timeout_s": 3600,
        "max_attempts": 3,
        "retry_on": [75],
        "machine": {"instance_types": ["c7i.large", "c6i.large"], "capacity_type": "spot"},
        "ports": [],
        "labels": {"team": "mi6"},
        "key": "report-2030-04-24",
    }
    return [
        _example(
            "now",
            "An image, to run as soon as there is a machine.",
            {**kind, "job": {"image": "nginx:1.9"}},
            message_id="order-17",
            reply_to="amq.rabbitmq.reply-to",
        ),
        _example("nightly", "With a time and a key of its own.", {**kind, "job": nightly}),
    ]


def replies() -> list[dict[str, Any]]:
    """Of its reply."""
    kind = {"type": SubmitReply.type_name(), "v": 1}
    known = {"id": _ID, "time": _AT, "errors": {}}
    wrong = {"image": "'No Image' is not an image reference; write [registry/]name[:tag][@digest]"}
    return [
        _example("accepted", "Written down.", {**kind, "status": "accepted", **known}),
        _example("duplicate", "Was there already.", {**kind, "status": "duplicate", **known}),
        _example("rejected", "Nothing made.", {**kind, "status": "rejected", "errors": wrong}),
    ]


def job_events() -> list[dict[str, Any]]:
    """Of what happens to a job."""
    return [
        _example(
            "scheduled",
            "A job was submitted.",
            _event_body("job.scheduled", 1041, attempt=0, actor="amqp"),
        ),
        _example(
            "succeeded",
            "Its program ended with 0.",
            _event_body(
                "job.finished.succeeded", 1063, outcome="succeeded", exit_code=0, **_KNOWN
            ),
        ),
    ]


def attempt_events() -> list[dict[str, Any]]:
    """Of what happens to an attempt."""
    return [
        _example(
            "started",
            "Its container runs.",
            _event_body(
                "attempt.started",
                1057,
                detail={"skew_s": 0.041},
                instance_id=_KNOWN["instance_id"],
            ),
        )
    ]


_KNOWN: dict[str, Any] = {
    "reason": "completed",
    "instance_id": "i-0123456789abcdef0",
    "times": {
        "created_at": "2030-04-25T05:25:57.100Z",
        "launched_at": "2030-04-25T05:25:58.312Z",
        "started_at": "2030-04-25T05:27:27.110Z",
        "exited_at": "2030-04-25T05:31:02.740Z",
    },
}


def _event_body(name: str, number: int, **fields: Any) -> dict[str, Any]:
    return {
        "type": name,
        "v": 1,
        "event_id": number,
        "job_id": _ID,
        "attempt": 1,
        "at": "2030-04-25T05:27:27.069123Z",
        "actor": "api",
        "detail": {},
        "key": "report-2030-04-24",
        "labels": {"team": "mi6"},
        "times": {},
        **fields,
    }


def of_schedule(kind: type[Message]) -> dict[str, Any]:
    """Of a message about a schedule."""
    head = {"type": kind.type_name(), "v": 1, "key": "nightly-42", "serial": 42}
    if kind is not SchedulePut:
        return _example("one", "By its name.", {**head, "name": "nightly"})
    job = {"image": "ghcr.io/acme/report:2", "env": {"DAY": "yesterday"}, "timeout_s": 3600}
    schedule = {
        "name": "nightly",
        "cron": "30 2 * * *",
        "zone": "Europe/Berlin",
        "overlap": "skip",
        "start_deadline_s": 1800,
        "job": job,
    }
    return _example("nightly", "All of it.", {**head, "schedule": schedule})


def schedule_replies() -> list[dict[str, Any]]:
    """Of the reply to one."""
    kind = {"type": ScheduleReply.type_name(), "v": 1, "name": "nightly"}
    state = {"version": 3, "paused": False, "errors": {}}
    wrong = {"cron": "minute '5/15': a step without a range is Quartz's; write `5-59/15`"}
    return [
        _example("accepted", "Done.", {**kind, "status": "accepted", **state}),
        _example("ran", "Its job.", {**kind, "status": "accepted", **state, "job_id": _ID}),
        _example("duplicate", "It was so already.", {**kind, "status": "duplicate", **state}),
        _example("outdated", "A later one came before.", {**kind, "status": "outdated", **state}),
        _example("rejected", "Nothing done.", {**kind, "status": "rejected", "errors": wrong}),
    ]
