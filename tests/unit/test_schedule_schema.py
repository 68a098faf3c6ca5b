"""What the published schemas of messages about schedules say is what their reader does, both ways.

Messages are generated from `docs/schemas/schedule.*.v1.json`, as `test_schema` does it for a submit.
What no schema can say is a list of its own, `beyond`.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import assume, example, given
from hypothesis import strategies as st
from jsonschema import validators

from atemporal.calendar import CronLine
from atemporal.errors import Invalid
from atemporal.messages import SCHEDULE, SchedulePut, decode
from atemporal.model.schedule import LABEL, parse_schedule
from tests.unit import test_schema as submits
from tests.unit.test_schema import SCHEMAS, VALIDATOR, from_schema, slowly

TYPES = [kind.type_name() for kind in SCHEDULE.types]
READ = {name: json.loads((SCHEMAS / f"{name}.v1.json").read_text()) for name in TYPES}
VALIDATORS = {
    name: validators.extend(type(VALIDATOR), {})(schema) for name, schema in READ.items()
}
PUT = "schedule.put"
DAILY = {"name": "a", "cron": "@daily"}
NOT_TAKEN = ("time", "run_at", "delay_s", "key", "start_deadline_s")
# A text of the schema is seldom a cron line, and never the name of a zone.
LINES = st.sampled_from(["0 2 * * *", "*/5 * * * mon-fri", "@daily", "5/15 * * * *", "0 0 31 2 *"])
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "Mars/Base"])


def generated(name: str) -> st.SearchStrategy[Any]:
    """Messages that the schema takes."""
    schema = READ[name]
    if name != PUT:
        return from_schema(schema)
    # Its references are to what it defines itself.
    inlined = json.loads(json.dumps(schema))
    fields = inlined["properties"]["schedule"]["properties"]
    for field, one in fields.items():
        reference = one.pop("$ref", "").rpartition("/")[2]
        fields[field] = {**inlined["$defs"].get(reference, {}), **one}
    return st.builds(_with_line, from_schema(inlined), LINES, ZONES)


def _with_line(message: dict[str, Any], line: str, zone: str) -> dict[str, Any]:
    return {**message, "schedule": {**message["schedule"], "cron": line, "zone": zone}}


def reads(message: Any) -> bool:
    """Whether the scheduler would read it, given a key."""
    try:
        read = decode(SCHEDULE, json.dumps(message).encode())
        if isinstance(read, SchedulePut):
            parse_schedule(read.schedule)
    except Invalid:
        return False
    return True


def beyond(message: dict[str, Any]) -> bool:
    """Whether something is wrong with it that no schema says."""
    schedule = message.get("schedule")
    if schedule is None:
        return False
    try:
        CronLine.parse(schedule["cron"], schedule.get("zone", "UTC"))
    except Invalid:
        return True
    job = schedule["job"]
    # Of a schedule's job it is asked at once whether it can be delivered.
    inline = job.get("delivery") == "inline" and bool(job.get("secrets") or job.get("secret_refs"))
    return inline or submits.beyond({"job": job}) or LABEL in job.get("labels", {})


def tolerated(message: dict[str, Any]) -> bool:
    """Whether it has something that is read though the schema does not show it."""
    schedule = message.get("schedule")
    job = schedule.get("job") if isinstance(schedule, dict) else None
    if not isinstance(job, dict):
        return False
    nothing = any(name in job and job[name] is None for name in NOT_TAKEN)
    return nothing or submits.tolerated({"type": "", "job": job})


ANY = st.sampled_from(TYPES).flatmap(generated)


@st.composite
def near_misses(draw: st.DrawFn) -> Any:
    """A valid message with a mistake in it, which may turn out to be none."""
    return submits._wrong(draw, draw(ANY))


def valid(message: Any) -> bool:
    """Whether the schema of its type takes it."""
    name = message.get("type")
    return isinstance(name, str) and name in VALIDATORS and VALIDATORS[name].is_valid(message)


@slowly
@given(ANY)
def test_what_the_schema_takes_is_read(message: Any) -> None:
    assert valid(message), "the generator does not know its schema"
    assume(not beyond(message))
    assert reads(message)


@slowly
@given(near_misses())
@example({"type": "schedule.run", "name": "a\n"})
@example({"type": "schedule.run", "name": "a", "v": True})
@example({"type": "schedule.run", "name": "a", "serial": 2**63})
@example({"type": "schedule.run", "name": "a", "key": ""})
@example({"type": "schedule.run", "name": "a" * 64})
@example({"type": PUT, "schedule": DAILY})
@example({"type": PUT, "schedule": {**DAILY, "job": {"image": "a", "key": "k"}}})
@example({"type": PUT, "schedule": {**DAILY, "window_s": 0, "job": {"image": "a"}}})
@example({"name": "a"})
def test_what_is_nearly_right_is_taken_by_both_or_by_neither(message: Any) -> None:
    assume(isinstance(message, dict) and not tolerated(message))
    is_valid = valid(message)
    assume(not (is_valid and beyond(message)))
    assert reads(message) == is_valid
