"""The public messages as an AsyncAPI 3.0 document, for tools of other teams.

Promise: the document says what the message classes, the topology and the list of event types say,
because it is made from them: schemas, exchanges, routing keys, types. It holds the public messages and
none of the daemons' own, and it stands alone: no reference leads out of it. Every example is valid
against its schema.
Mechanism: `docs/generate.py` writes it to `docs/schemas/asyncapi.json`; tests compare the two and hold
it against AsyncAPI's own JSON Schema.
Failure: none; what would make the document wrong makes a test fail. It is here, and not beside
`docs/generate.py`, because here its types are checked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from atemporal.asyncapi import examples
from atemporal.broker.topology import DEAD
from atemporal.event_types import ATTEMPT, EVENT_TYPES, JOB, types_of
from atemporal.messages import (
    BODY_LIMIT,
    COMMANDS,
    EVENTS,
    SCHEDULE,
    JobEvent,
    JobSubmit,
    Message,
    SchedulePut,
    ScheduleReply,
    SubmitReply,
)
from atemporal.model import JobSpec
from atemporal.model.schedule import ScheduleFields, job_schema

JSON = "application/json"
_BINDING = "0.3.0"

_INFO = f"""\
Other systems submit jobs by `job.submit`, make and change recurring schedules by `schedule.*`, and hear
of jobs by events. Any AMQP 0-9-1 client will do; the
page docs/messages.md explains what no schema can say. What stands here under `headers` are AMQP's own
properties of a message (`reply_to`, `correlation_id`, `message_id`), not its table of headers, but for
those that begin with `x-`. A body has at most {BODY_LIMIT} bytes.
"""
_REPLY = """\
The queue that the asker named in `reply_to`, or `amq.rabbitmq.reply-to` for a direct reply. The asker
declares it before it asks; the reply goes through the default exchange, with the queue's name as its
routing key."""
_LISTEN = """\
Bind a queue of your own. Events come at least once and may come out of order: drop what you have seen by
`event_id`. A reader passes over fields that it does not know, and over types that it does not know."""


# By their classes: `schedulePut` is the message of `SchedulePut`.
_SCHEDULE_MESSAGES = {
    kind.__name__[0].lower() + kind.__name__[1:]: kind for kind in SCHEDULE.types
}


def submit_schema() -> dict[str, Any]:
    """The JSON Schema of a `job.submit`, with the fields of its job."""
    submit = JobSubmit.model_json_schema()
    submit["properties"]["job"] = JobSpec.model_json_schema(ref_template="#/$defs/{model}")
    submit["$defs"] = submit["properties"]["job"].pop("$defs")
    return submit


def schedule_schemas() -> dict[str, dict[str, Any]]:
    """The JSON Schema of each message about a schedule, by its type; `schedule.put` with all fields."""
    schemas = {kind.type_name(): kind.model_json_schema() for kind in SCHEDULE.types}
    for schema in schemas.values():
        # Nobody writes these by hand, so none is read without its type.
        schema["required"] = ["type", *schema.get("required", ())]
    put = schemas[SchedulePut.type_name()]
    fields = ScheduleFields.model_json_schema(ref_template="#/$defs/{model}")
    fields["properties"]["job"] = {**job_schema(), "description": "The job of each fire."}
    fields["required"] = [*fields["required"], "job"]
    put["$defs"] = fields.pop("$defs")
    put["properties"]["schedule"] = fields
    return schemas


def document() -> dict[str, Any]:
    """The whole document, as JSON's values."""
    schemas: dict[str, Any] = {}
    public: tuple[type[Message], ...] = (SubmitReply, ScheduleReply, JobEvent)
    for schema in (
        submit_schema(),
        *schedule_schemas().values(),
        *(kind.model_json_schema() for kind in public),
    ):
        alone = _with_references_to_components(schema)
        schemas |= alone.pop("$defs", {})
        schemas[alone["title"]] = alone
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "atemporal",
            "version": str(JobSubmit.model_fields["v"].default),
            "description": _INFO,
            "license": {"name": "MIT"},
        },
        "defaultContentType": JSON,
        "servers": {"broker": _server()},
        "channels": _channels(),
        "operations": _operations(),
        "components": {
            "schemas": schemas,
            "messages": _messages(),
            "securitySchemes": {"user": {"type": "userPassword"}},
        },
    }


def _with_references_to_components(schema: Mapping[str, Any]) -> dict[str, Any]:
    text = json.dumps(schema).replace('"#/$defs/', '"#/components/schemas/')
    moved: dict[str, Any] = json.loads(text)
    return moved


def _server() -> dict[str, Any]:
    return {
        "host": "{host}:5672",
        "pathname": "/{vhost}",
        "protocol": "amqp",
        "protocolVersion": "0-9-1",
        "description": "The RabbitMQ of the installation: ATEMPORAL_BROKER_URL.",
        "variables": {
            "host": {"default": "localhost", "description": "where RabbitMQ is"},
            "vhost": {"default": "%2F", "description": "the virtual host, escaped for an address"},
        },
        "security": [{"$ref": "#/components/securitySchemes/user"}],
    }


def _exchange(name: str) -> dict[str, Any]:
    exchange = {
        "name": name,
        "type": "topic",
        "durable": True,
        "autoDelete": False,
    }
    return {"amqp": {"is": "routingKey", "exchange": exchange, "bindingVersion": _BINDING}}


def _queue(**properties: Any) -> dict[str, Any]:
    return {"amqp": {"is": "queue", "queue": properties, "bindingVersion": _BINDING}}


def _channels() -> dict[str, Any]:
    return {
        "submit": {
            "address": JobSubmit.type_name(),
            "title": "Jobs to be made",
            "description": f"Publish with this routing key. RabbitMQ brings it into the quorum queue "
            f"`{JobSubmit.queue}`, which the scheduler reads.",
            "messages": {"jobSubmit": {"$ref": "#/components/messages/jobSubmit"}},
            "bindings": _exchange(COMMANDS),
        },
        "schedules": {
            "address": "schedule.{what}",
            "title": "Recurring schedules to be made and changed",
            "description": "Publish with the type as the routing key. RabbitMQ brings it into the "
            f"quorum queue `{SCHEDULE}`, which the scheduler reads.",
            "parameters": {
                "what": {
                    "enum": [kind.type_name().partition(".")[2] for kind in SCHEDULE.types],
                    "description": "the rest of the type; the routing key is the whole type",
                }
            },
            "messages": {
                name: {"$ref": f"#/components/messages/{name}"} for name in _SCHEDULE_MESSAGES
            },
            "bindings": _exchange(COMMANDS),
        },
        "replies": {
            "address": None,
            "title": "What became of a message",
            "description": _REPLY,
            "messages": {
                name: {"$ref": f"#/components/messages/{name}"}
                for name in ("submitReply", "scheduleReply")
            },
            "bindings": _queue(),
        },
        "jobEvents": _events_channel(JOB, "What happens to jobs"),
        "attemptEvents": _events_channel(ATTEMPT, "What happens to the attempts of jobs"),
        "deadLetters": {
            "address": DEAD,
            "title": "Messages that nobody could use",
            "description": "A scheduler reads them and keeps them for the installation's operators; "
            "nobody else does.",
            "messages": {"deadLetter": {"$ref": "#/components/messages/deadLetter"}},
            "bindings": _queue(name=DEAD, durable=True, exclusive=False, autoDelete=False),
        },
    }


def _events_channel(family: str, title: str) -> dict[str, Any]:
    meanings = "\n".join(
        f"- `{name}`: {meaning}"
        for name, meaning in EVENT_TYPES.items()
        if name.startswith(f"{family}.")
    )
    return {
        "address": f"{family}.{{what}}",
        "title": title,
        "description": f"{_LISTEN} `{family}.#` binds all of them.\n\n{meanings}",
        "parameters": {
            "what": {
                "enum": list(types_of(family)),
                "description": "the rest of the type; the routing key is the whole type",
            }
        },
        "messages": {"event": {"$ref": f"#/components/messages/{family}Event"}},
        "bindings": _exchange(EVENTS),
    }


def _operations() -> dict[str, Any]:
    def sent(channel: str, summary: str, **binding: Any) -> dict[str, Any]:
        return {
            "action": "send",
            "channel": {"$ref": f"#/channels/{channel}"},
            "summary": summary,
            "bindings": {"amqp": {"deliveryMode": 2, **binding, "bindingVersion": _BINDING}},
        }

    def taken(channel: str, messages: Iterable[str], reply: str, **texts: str) -> dict[str, Any]:
        return {
            "action": "receive",
            "channel": {"$ref": f"#/channels/{channel}"},
            **texts,
            "messages": [{"$ref": f"#/channels/{channel}/messages/{one}"} for one in messages],
            "bindings": {
                "amqp": {
                    "deliveryMode": 2,
                    "mandatory": True,
                    "ack": True,
                    "bindingVersion": _BINDING,
                }
            },
            "reply": {
                "address": {
                    "location": "$message.header#/reply_to",
                    "description": "without `reply_to` there is no reply",
                },
                "channel": {"$ref": "#/channels/replies"},
                "messages": [{"$ref": f"#/channels/replies/messages/{reply}"}],
            },
        }

    return {
        "submitJob": taken(
            "submit",
            ["jobSubmit"],
            "submitReply",
            summary="Make a job, once for each key.",
            description="The scheduler acknowledges the message when the job is written down.",
        ),
        "changeSchedule": taken(
            "schedules",
            _SCHEDULE_MESSAGES,
            "scheduleReply",
            summary="Make or change a recurring schedule, once for each key.",
            description="The scheduler acknowledges the message when the change is written down.",
        ),
        "tellOfJobs": sent("jobEvents", "Tell of every transition of a job.", mandatory=False),
        "tellOfAttempts": sent(
            "attemptEvents", "Tell of every transition of an attempt.", mandatory=False
        ),
        "keepDeadLetters": sent("deadLetters", "Keep what could not be used, with the reason."),
    }


def _messages() -> dict[str, Any]:
    return {
        "jobSubmit": {
            "name": JobSubmit.type_name(),
            "title": "Make this job",
            "contentType": JSON,
            "headers": _properties(
                message_id="the key of a job that has none of its own: the same job, once only",
                reply_to="where the reply goes; absent: there is none",
                correlation_id="comes back with the reply; absent: the `message_id` does",
            ),
            "correlationId": {"location": "$message.header#/correlation_id"},
            "payload": {"$ref": "#/components/schemas/JobSubmit"},
            "examples": examples.submits(),
        },
        **_schedule_messages(),
        "submitReply": {
            "name": SubmitReply.type_name(),
            "title": "What became of a submit",
            "contentType": JSON,
            "headers": _properties(correlation_id="that of the submit, or its `message_id`"),
            "correlationId": {"location": "$message.header#/correlation_id"},
            "payload": {"$ref": "#/components/schemas/SubmitReply"},
            "examples": examples.replies(),
        },
        "jobEvent": _event("Something happened to a job", JOB, examples.job_events()),
        "attemptEvent": _event(
            "Something happened to an attempt", ATTEMPT, examples.attempt_events()
        ),
        "deadLetter": {
            "name": "deadLetter",
            "title": "A message that nobody could use",
            "description": "The body is as it came: JSON or not.",
            "headers": _properties(
                **{
                    "x-atemporal-reason": "why",
                    "x-atemporal-errors": "each bad field and why, as JSON",
                    "x-atemporal-queue": "the queue whose reader could not use it",
                }
            ),
            "payload": {},
        },
    }


def _schedule_messages() -> dict[str, Any]:
    asked = {
        name: {
            "name": kind.type_name(),
            "title": (kind.__doc__ or "").splitlines()[0].partition(": ")[2],
            "contentType": JSON,
            "headers": _properties(
                message_id="the key of a message that has none of its own: it is applied once",
                reply_to="where the reply goes; absent: there is none",
                correlation_id="comes back with the reply; absent: the `message_id` does",
            ),
            "correlationId": {"location": "$message.header#/correlation_id"},
            "payload": {"$ref": f"#/components/schemas/{kind.__name__}"},
            "examples": [examples.of_schedule(kind)],
        }
        for name, kind in _SCHEDULE_MESSAGES.items()
    }
    reply = {
        "name": ScheduleReply.type_name(),
        "title": "What became of a message about a schedule",
        "contentType": JSON,
        "headers": _properties(correlation_id="that of the message, or its `message_id`"),
        "correlationId": {"location": "$message.header#/correlation_id"},
        "payload": {"$ref": "#/components/schemas/ScheduleReply"},
        "examples": examples.schedule_replies(),
    }
    return {**asked, "scheduleReply": reply}


def _properties(**properties: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            name: {"type": "string", "description": text} for name, text in properties.items()
        },
    }


def _event(title: str, family: str, examples: list[dict[str, Any]]) -> dict[str, Any]:
    types = {"properties": {"type": {"enum": [f"{family}.{one}" for one in types_of(family)]}}}
    return {
        "name": f"{family}.*",
        "title": title,
        "contentType": JSON,
        "headers": _properties(message_id="`event.` and the event's number"),
        "payload": {"allOf": [{"$ref": "#/components/schemas/JobEvent"}, types]},
        "examples": examples,
    }
