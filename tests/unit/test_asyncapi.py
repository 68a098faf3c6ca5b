"""The AsyncAPI document says what the code does, and its examples are what it promises to read."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from atemporal.asyncapi import document
from atemporal.broker import DEAD, EXCHANGES
from atemporal.event_types import EVENT_TYPES
from atemporal.messages import (
    MESSAGES,
    SCHEDULE,
    SUBMIT,
    JobEvent,
    Message,
    SchedulePut,
    ScheduleReply,
    SubmitReply,
    decode,
)
from atemporal.model import parse_spec
from atemporal.model.schedule import parse_schedule
from atemporal.states import AttemptState, JobState, Outcome

ROOT = Path(__file__).parents[2]
DOCUMENT = document()
MESSAGES_OF_IT = DOCUMENT["components"]["messages"]
EXAMPLES = [
    pytest.param(name, example["payload"], id=f"{name}-{example['name']}")
    for name, message in MESSAGES_OF_IT.items()
    for example in message.get("examples", ())
]


def references(value: Any) -> Iterator[str]:
    """Every reference in it."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "$ref":
                yield inner
            else:
                yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def resolved(reference: str) -> Any:
    """What a reference leads to."""
    at: Any = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        at = at[part]
    return at


def channels() -> dict[str, dict[str, Any]]:
    """The channels with what AMQP calls them."""
    return {name: one["bindings"]["amqp"] for name, one in DOCUMENT["channels"].items()}


def test_every_reference_stays_inside_and_leads_somewhere() -> None:
    found = list(references(DOCUMENT))
    assert len(found) > 10
    for reference in found:
        assert reference.startswith("#/"), reference
        assert isinstance(resolved(reference), dict)


def test_exchanges_and_routing_keys_are_those_that_are_declared() -> None:
    declared = {one.name: (one.type, one.durable, one.auto_delete) for one in EXCHANGES}
    public = {"submit": "atemporal", "schedules": "atemporal", "jobEvents": "atemporal.events"}
    public["attemptEvents"] = "atemporal.events"
    shown = {name: one["exchange"] for name, one in channels().items() if "exchange" in one}
    assert {name: one["name"] for name, one in shown.items()} == public
    for one in shown.values():
        assert declared[one["name"]] == (one["type"], one["durable"], one["autoDelete"])
    assert DOCUMENT["channels"]["submit"]["address"] == "job.submit"
    assert channels()["deadLetters"]["queue"]["name"] == DEAD


def test_all_public_messages_are_there_and_no_other() -> None:
    public = {kind for kind in MESSAGES if not kind.exchange.endswith(".internal")}
    assert {kind.__name__ for kind in public} <= set(DOCUMENT["components"]["schemas"])
    private = {kind.type_name() for kind in MESSAGES if kind not in public}
    assert len(private) == 4
    for name in private:
        assert f'"{name}"' not in json.dumps(DOCUMENT)


@pytest.mark.parametrize(("name", "payload"), EXAMPLES)
def test_an_example_is_valid(name: str, payload: Any) -> None:
    schema = {**MESSAGES_OF_IT[name]["payload"], "components": DOCUMENT["components"]}
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(payload)


@pytest.mark.parametrize(("name", "payload"), EXAMPLES)
def test_an_example_is_read_by_the_classes(name: str, payload: dict[str, Any]) -> None:
    body = json.dumps(payload).encode()
    if name == "jobSubmit":
        parse_spec(decode(SUBMIT, body).job)
    elif name.startswith("schedule") and name != "scheduleReply":
        message = decode(SCHEDULE, body)
        if isinstance(message, SchedulePut):
            parse_schedule(message.schedule)
    else:
        kinds: dict[str, type[Message]] = {
            "submitReply": SubmitReply,
            "scheduleReply": ScheduleReply,
        }
        kind = kinds.get(name, JobEvent)
        read = kind.model_validate_json(body)
        assert json.loads(read.model_dump_json(exclude_none=True)) == payload


def written_by_the_store() -> tuple[set[str], set[str]]:
    """What its source names as types of events: whole ones, and those with a `{}` for what is put in."""
    whole: set[str] = set()
    made: set[str] = set()
    for path in sorted((ROOT / "atemporal" / "store").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                whole |= set(re.findall(r"^((?:job|attempt)\.[a-z_.]*[a-z])$", node.value))
                whole |= set(re.findall(r"'((?:job|attempt)\.[a-z_.]+)'", node.value))
            elif isinstance(node, ast.JoinedStr):
                parts = [
                    one.value if isinstance(one, ast.Constant) else "{}" for one in node.values
                ]
                made |= set(re.findall(r"^(?:job|attempt)\..*\{\}.*$", "".join(map(str, parts))))
    return whole, made


def test_the_list_and_the_channels_have_every_type_that_the_store_can_write_and_no_other() -> None:
    """What is put into a type is a state or an outcome; the tests' databases take no other."""
    whole, made = written_by_the_store()
    assert made == {"job.{}", "job.{}.{}", "attempt.{}"}
    running = set(JobState) - {JobState.FINISHED}
    can_be = whole | {f"job.{state}" for state in running}
    can_be |= {f"job.finished.{outcome}" for outcome in Outcome}
    can_be |= {f"attempt.{state}" for state in AttemptState}
    assert set(EVENT_TYPES) == can_be
    shown = [
        channel["address"].format(what=what)
        for channel in DOCUMENT["channels"].values()
        for what in channel.get("parameters", {}).get("what", {}).get("enum", ())
        if channel["address"] != "schedule.{what}"
    ]
    assert sorted(shown) == sorted(can_be)
