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
from collections.abc import Mapping
from typing import Any

from atemporal.broker.topology import DEAD
from atemporal.event_types import ATTEMPT, EVENT_TYPES, JOB, types_of
from atemporal.messages import BODY_LIMIT, COMMANDS, EVENTS, JobEvent, JobSubmit, SubmitReply
from atemporal.model import JobSpec

JSON = "application/json"
_BINDING = "0.3.0"
_ID = "01900000-0000-7000-8000-000000000001"
_AT = "2030-04-25T05:27:27.069Z"

_INFO = f"""\
Other systems submit jobs by `job.submit` and hear of them by events. Any AMQP 0-9-1 client will do; the
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


def submit_schema() -> dict[str, Any]:
    """The JSON Schema of a `job.submit`, with the fields of its job."""
    submit = JobSubmit.model_json_schema()
    submit["properties"]["job"] = JobSpec.model_json_schema(ref_template="#/$defs/{model}")
    submit["$defs"] = submit["properties"]["job"].pop("$defs")
    return submit


def document() -> dict[str, Any]:
    """The whole document, as JSON's values."""
    schemas: dict[str, Any] = {}
    for schema in (submit_schema(), SubmitReply.model_json_schema(), JobEvent.model_json_schema()):
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
        "replies": {
            "address": None,
            "title": "What became of a submit",
            "description": _REPLY,
            "messages": {"submitReply": {"$ref": "#/components/messages/submitReply"}},
            "bindings": _queue(),
        },
        "jobEvents": _events_channel(JOB, "What happens to jobs"),
        "attemptEvents": _events_channel(ATTEMPT, "What happens to the attempts of jobs"),
        "deadLetters": {
            "address": DEAD,
            "title": "Messages that nobody could use",
            "description": "For the installation's operators: you read them, nobody else does.",
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

    return {
        "submitJob": {
            "action": "receive",
            "channel": {"$ref": "#/channels/submit"},
            "summary": "Make a job, once for each key.",
            "description": "The scheduler acknowledges the message when the job is written down.",
            "messages": [{"$ref": "#/channels/submit/messages/jobSubmit"}],
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
                "messages": [{"$ref": "#/channels/replies/messages/submitReply"}],
            },
        },
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
            "examples": _submits(),
        },
        "submitReply": {
            "name": SubmitReply.type_name(),
            "title": "What became of a submit",
            "contentType": JSON,
            "headers": _properties(correlation_id="that of the submit, or its `message_id`"),
            "correlationId": {"location": "$message.header#/correlation_id"},
            "payload": {"$ref": "#/components/schemas/SubmitReply"},
            "examples": _replies(),
        },
        "jobEvent": _event("Something happened to a job", JOB, _job_events()),
        "attemptEvent": _event("Something happened to an attempt", ATTEMPT, _attempt_events()),
        "deadLetter": {
            "name": "deadLetter",
            "title": "A message that nobody could use",
            "description": "The body is as it came: JSON or not.",
            "headers": _properties(**{"x-atemporal-reason": "why"}),
            "payload": {},
        },
    }


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


def _example(
    name: str, summary: str, payload: Mapping[str, Any], **headers: str
) -> dict[str, Any]:
    example: dict[str, Any] = {"name": name, "summary": summary, "payload": dict(payload)}
    return {**example, "headers": headers} if headers else example


def _submits() -> list[dict[str, Any]]:
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


def _replies() -> list[dict[str, Any]]:
    kind = {"type": SubmitReply.type_name(), "v": 1}
    known = {"id": _ID, "time": _AT, "errors": {}}
    wrong = {"image": "'No Image' is not an image reference; write [registry/]name[:tag][@digest]"}
    return [
        _example("accepted", "Written down.", {**kind, "status": "accepted", **known}),
        _example("duplicate", "Was there already.", {**kind, "status": "duplicate", **known}),
        _example("rejected", "Nothing made.", {**kind, "status": "rejected", "errors": wrong}),
    ]


def _job_events() -> list[dict[str, Any]]:
    return [
        _example(
            "scheduled",
            "A job was submitted.",
            _event_body("job.scheduled", 1041, attempt=0, actor="amqp"),
        ),
        _example(
            "succeeded",
            "Its program ended with 0.",
            _event_body("job.finished.succeeded", 1063, outcome="succeeded", exit_code=0),
        ),
    ]


def _attempt_events() -> list[dict[str, Any]]:
    return [
        _example(
            "started",
            "Its container runs.",
            _event_body("attempt.started", 1057, detail={"skew_s": 0.041}),
        )
    ]


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
        **fields,
    }
