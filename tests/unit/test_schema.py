"""What the published schema of a submit says is what its reader does, both ways.

Messages are generated from `docs/schemas/job.submit.v1.json`: valid ones, and ones that are wrong by one
thing. What no schema can say is a list of its own, `beyond`, and so is what the reader tolerates.
"""

from __future__ import annotations

import json
import re
import unicodedata
from calendar import monthrange
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

import click
import pytest
from hypothesis import HealthCheck, assume, event, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError

from atemporal import image, job_lines
from atemporal.architecture import architecture
from atemporal.cli.submit import submit
from atemporal.clock import INSTANT_PATTERN, parse_utc
from atemporal.errors import Invalid
from atemporal.messages import SUBMIT, decode
from atemporal.model import parse_spec
from atemporal.model.container import container_path
from services.api import jobs, request_body, submission

SCHEMAS = Path(__file__).parents[2] / "docs/schemas"
SCHEMA: dict[str, Any] = json.loads((SCHEMAS / "job.submit.v1.json").read_text())


def as_python(pattern: str) -> str:
    """The pattern as Python writes it: its own `$` also stands before a last newline."""
    return pattern.replace("$", r"\Z")


def _pattern(_: object, pattern: str, value: Any, __: object) -> Iterator[ValidationError]:
    if isinstance(value, str) and not re.search(as_python(pattern), value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


# As JSON Schema has it, whose expressions are ECMA's.
VALIDATOR = validators.extend(Draft202012Validator, {"pattern": _pattern})(SCHEMA)
# JSON can hold half of a surrogate pair, which is no text.
TEXT = st.characters(exclude_categories=["Cs"])
# What the generator passes over, because it says nothing about what is valid.
_REMARKS = {"title", "description", "default", "examples", "$defs", "writeOnly"}

slowly = settings(
    max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


def reads(message: Any) -> bool:
    """Whether the scheduler would make a job of the message, if its machine has room for it."""
    try:
        parse_spec(decode(SUBMIT, json.dumps(message).encode()).job)
    except Invalid:
        return False
    return True


def from_schema(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a part of the schema takes; a keyword that it does not know is an error."""
    rest = {name: value for name, value in schema.items() if name not in _REMARKS}
    if "$ref" in rest:
        name = rest.pop("$ref").removeprefix("#/$defs/")
        assert not rest
        return from_schema(SCHEMA["$defs"][name])
    if "anyOf" in rest:
        options = rest.pop("anyOf")
        assert not rest
        return st.one_of(*map(from_schema, options))
    if "const" in rest:
        return st.just(rest["const"])
    if "enum" in rest:
        return st.sampled_from(rest["enum"])
    kind = rest.pop("type")
    made = _MAKERS[kind](rest)
    assert not rest, f"the generator does not know {rest}"
    return made


def _text(rest: dict[str, Any]) -> st.SearchStrategy[str]:
    shortest, longest = rest.pop("minLength", 0), rest.pop("maxLength", None)
    pattern = rest.pop("pattern", None)
    if pattern is None:
        return st.text(TEXT, min_size=shortest, max_size=longest)
    texts = st.from_regex(as_python(pattern), alphabet=TEXT)
    if refused := rest.pop("not", None):
        assert list(refused) == ["pattern"]
        no = re.compile(as_python(refused["pattern"]))
        texts = texts.filter(lambda text: not no.search(text))
    return texts.filter(lambda text: shortest <= len(text) <= (longest or len(text)))


def _number(rest: dict[str, Any]) -> st.SearchStrategy[int]:
    return st.integers(rest.pop("minimum", None), rest.pop("maximum", None))


def _array(rest: dict[str, Any]) -> st.SearchStrategy[list[Any]]:
    # More than a few show nothing new, and the limit is among the near misses.
    items, most = from_schema(rest.pop("items")), min(rest.pop("maxItems", 3), 3)
    unique, least = rest.pop("uniqueItems", False), rest.pop("minItems", 0)
    lists = st.lists(items, max_size=most, unique=unique)
    for first in rest.pop("prefixItems", ()):
        lists = st.builds(lambda one, more: [one, *more], from_schema(first), lists) | st.just([])
    return lists.filter(lambda one: len(one) >= least)


def _object(rest: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    more = rest.pop("additionalProperties", False)
    if more is not False:
        names = from_schema({"type": "string", **rest.pop("propertyNames", {})})
        return st.dictionaries(
            names, from_schema(more), max_size=min(rest.pop("maxProperties", 3), 3)
        )
    fields = {name: from_schema(one) for name, one in rest.pop("properties").items()}
    needed = set(rest.pop("required", ()))
    refused = rest.pop("not", None)
    objects = st.fixed_dictionaries(
        {name: one for name, one in fields.items() if name in needed},
        optional={name: one for name, one in fields.items() if name not in needed},
    )
    if refused is None:
        return objects
    no = Draft202012Validator(refused)
    return objects.filter(lambda value: not no.is_valid(value))


_MAKERS: dict[str, Callable[[dict[str, Any]], st.SearchStrategy[Any]]] = {
    "string": _text,
    "integer": _number,
    "array": _array,
    "object": _object,
    "null": lambda _: st.none(),
}

VALID = from_schema(SCHEMA)
OTHER = st.sampled_from(
    [
        *(
            None,
            True,
            False,
            -1,
            0,
            1,
            2,
            256,
            601,
            65_536,
            10**9,
            {},
            {"a": 1},
            [0],
            [256],
            [True],
        ),
        *(
            "",
            "x",
            "\0",
            "auto",
            "2030-04-25",
            "3000-01-01T00:00Z",
            ["x"],
            ["x"] * 2,
            ["80:80"] * 2,
        ),
    ]
)
NAMES = st.sampled_from(["a b", "A", "", "ATEMPORAL_X", "time", "delay_s", "key", "v", "x\n"])


def _wrong(draw: st.DrawFn, value: Any) -> Any:
    """The value with one thing about it changed, here or inside."""
    if isinstance(value, dict) and value and draw(st.booleans()):
        name = draw(st.sampled_from(sorted(value)))
        return {**value, name: _wrong(draw, value[name])}
    if isinstance(value, list) and value and draw(st.booleans()):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], _wrong(draw, value[at]), *value[at + 1 :]]
    match value:
        case dict():
            left_out = draw(st.sampled_from(["", *sorted(value)]))
            more = draw(st.dictionaries(NAMES, OTHER, max_size=1))
            return {name: one for name, one in value.items() if name != left_out} | more
        case list():
            return [*value, *draw(st.lists(OTHER, max_size=1))] * draw(
                st.sampled_from([1, 1, 2, 300])
            )
        case str():
            at = draw(st.integers(0, len(value)))
            return (
                value[:at]
                + draw(st.sampled_from(["", "\n", "\0", "é", "A", "-", ":", "9"]))
                + (value[at + draw(st.integers(0, 1)) :])
            )
        case bool() | None:
            return draw(OTHER)
        case int():
            return draw(
                st.sampled_from([value - 1, value + 1, -value, value * 1000, str(value), True])
            )
    return draw(OTHER)


@st.composite
def near_misses(draw: st.DrawFn) -> Any:
    """A valid message with a mistake in it, which may turn out to be none."""
    return _wrong(draw, draw(VALID))


@st.composite
def nearly(draw: st.DrawFn, pattern: str) -> str:
    """A text of the pattern, or one with a mistake in it."""
    text = draw(st.from_regex(as_python(pattern), alphabet=TEXT))
    return cast(str, _wrong(draw, text)) if draw(st.booleans()) else text


def beyond(message: dict[str, Any]) -> bool:
    """Whether something is wrong with a message that is valid by the schema: all that no schema says."""
    job = message["job"]
    taken = [(int(port.partition(":")[0]), port.endswith("/udp")) for port in job.get("ports", ())]
    return (
        # Two ports of the machine, written differently.
        len(set(taken)) < len(taken)
        # Two volumes at one place of the container.
        or len({*map(container_path, job.get("volumes", ()))}) < len(job.get("volumes", ()))
        # A day that its month does not have; or in UTC it is before the year 1 or after 9999.
        or not _in_the_calendar(job.get("time"))
        # Processors of two architectures.
        or len({*map(architecture, job.get("machine", {}).get("instance_types", ()))}) > 1
        # An image whose path, without its registry, is longer than 255 characters.
        or len(job["image"]) > 255
        # A label with a sign beyond ASCII, or more than 256 UTF-16 units.
        or any(not _for_a_tag(value) for value in job.get("labels", {}).values())
        # One name in the environment, among the secrets or among those by reference.
        or _twice(job.get("env", {}), job.get("secrets", {}), job.get("secret_refs", {}))
    )


def _twice(*variables: dict[str, str]) -> bool:
    names = [name for some in variables for name in some]
    return len(set(names)) < len(names)


def _for_a_tag(value: str) -> bool:
    kinds = {unicodedata.category(one)[0] for one in value if ord(one) > 127}
    return kinds <= set("LNZ") and len(value.encode("utf-16-le")) <= 512


def _in_the_calendar(time: str | None) -> bool:
    if time is None:
        return True
    year, month, day = (int(part) for part in time.strip(" \t\n\r\f\v")[:10].split("-"))
    return day <= monthrange(year, month)[1] and 1 < year < 9999


@slowly
@given(VALID)
def test_what_the_schema_takes_is_read(message: Any) -> None:
    assert VALIDATOR.is_valid(message), "the generator does not know its schema"
    assume(not beyond(message))
    assert reads(message)


@slowly
@given(near_misses())
@example({"v": True, "job": {"image": "a"}})
@example({"job": {"image": "a", "ports": ["80:80"] * 2}})
@example({"job": {"image": "a", "time": "2030-01-01T24:00Z"}})
@example({"job": {"image": "a", "time": "2030-01-01T00:00Z\x1f"}})
@example({"job": {"image": "a", "time": "\u00a02030-01-01T00:00Z"}})
@example({"job": {"image": "a", "time": "٢٠٣٠-01-01T00:00Z"}})
@example({"job": {"image": "a", "key": "x\n"}})
@example({"job": {"image": "a", "command": ["", "x"]}})
@example({"job": {"image": "a", "time": "2030-01-01T00:00Z", "delay_s": 0}})
@example({"job": {"image": "a", "time": None, "delay_s": 0}})
@example({"job": {"image": "docker.io/sha256:1"}})
@example({"job": {"image": "0" * 64}})
@example({"job": {"image": "[0]/a"}})
@example({"job": {"image": "0" * 64 + ":1"}})
@example({"job": {"image": "a@sha256:" + "0" * 63}})
@example({"job": {"image": "a@md5:" + "0" * 32}})
@example({"job": {"image": "a", "env": {"ATEMPORAL_X": ""}}})
@example({"job": {"image": "a", "machine": {"subnets": ["subnet-0\n"]}}})
@example({"job": {"image": "a", "labels": {"aws:x": "1"}}})
@example({"job": {"image": "a", "labels": {"x": "a,b"}}})
@example({"job": {"image": "a", "labels": {"x": "a\n"}}})
@example({"job": {"image": "a", "labels": {"x": "[" + chr(92) + "^~"}}})
@example({"job": {"image": "a", "labels": {"x": "\x85"}}})
@example({"job": {"image": "a", "labels": {"x": "Az 09+-=._:/@ \u00c4\u0661\u00a0"}}})
@example({"job": {"image": "a", "labels": {"x": "v" * 256}}})
def test_what_is_nearly_right_is_taken_by_both_or_by_neither(message: Any) -> None:
    assume(isinstance(message, dict) and not tolerated(message))
    valid = VALIDATOR.is_valid(message)
    event("valid" if valid else "refused")
    assume(not (valid and beyond(message)))
    assert reads(message) == valid


def tolerated(message: dict[str, Any]) -> bool:
    """Whether the message has something that is read though the schema does not show it."""
    job = message.get("job")
    if "type" not in message and "image" in message:
        return True
    fields = job if isinstance(job, dict) else {}
    empty = ("env", "secrets", "secret_refs", "labels", "machine")
    return any(fields.get(name) == [] for name in empty)


@pytest.mark.parametrize(
    ("field", "value", "same"),
    [
        ("run_at", "2030-01-01T00:00Z", {"time": "2030-01-01T00:00Z"}),
        ("machine", {"market": "spot"}, {"machine": {"capacity_type": "spot"}}),
        ("env", [], {}),
        ("labels", [], {}),
        ("machine", [], {}),
    ],
)
def test_what_the_schema_does_not_show_is_tolerated(
    field: str, value: Any, same: dict[str, Any]
) -> None:
    bare = {"image": "a", field: value}
    assert not VALIDATOR.is_valid({"job": bare})
    assert decode(SUBMIT, json.dumps(bare).encode()).job == bare
    assert parse_spec(bare) == parse_spec({"image": "a", **same})


@pytest.mark.parametrize(
    "job",
    [
        {"ports": ["80:80", "080:81"]},
        {"volumes": ["/data", "/mnt:/data"]},
        {"machine": {"instance_types": ["t3.small", "t4g.small"]}},
        {"time": "2030-02-30T00:00Z"},
        {"time": "9999-12-31T23:59:59-01:00"},
        {"image": "a" * 256},
        {"timeout_s": 60.0},
        {"command": ["\ud800"]},
        {"labels": {"x": "\N{EURO SIGN}"}},
        {"labels": {"x": "\N{MATHEMATICAL BOLD CAPITAL A}" * 129}},
    ],
)
def test_what_no_schema_says_is_refused(job: dict[str, Any]) -> None:
    message = {"job": {"image": "a", **job}}
    assert VALIDATOR.is_valid(message)
    assert not reads(message)


@settings(slowly, max_examples=40)
@given(from_schema(SCHEMA["properties"]["job"]["properties"]["image"]))
@example("[::1]/a")
@example("[::1]:5000/a")
def test_every_image_of_the_form_has_a_normal_form(text: str) -> None:
    assume(len(text) <= 255)
    assert image.normalise(image.normalise(text)) == image.normalise(text)


def _by_message(text: str) -> datetime | None:
    body = json.dumps({"job": {"image": "a", "time": text}}).encode()
    return parse_spec(decode(SUBMIT, body).job).time


def _by_json(text: str) -> datetime | None:
    body = json.dumps({"image": "a", "time": text}).encode()
    return submission.specification(request_body.fields(body, request_body.JSON)).time


def _by_form(text: str) -> datetime | None:
    body = urlencode({"image": "a", "time": text}).encode()
    return submission.specification(request_body.fields(body, request_body.FORM)).time


def _by_line(text: str) -> datetime | None:
    return job_lines.read_line(json.dumps({"image": "a", "time": text}).encode()).time


def _by_another_time(text: str) -> datetime | None:
    return jobs._new_time(json.dumps({"time": text}).encode()).time


def _by_command_line(option: str, text: str) -> datetime | None:
    context = submit.make_context("submit", ["a", f"{option}={text}"])
    return cast(datetime | None, context.params["time"])


DOORS: dict[str, Callable[[str], datetime | None]] = {
    "a job message": _by_message,
    "POST /jobs, JSON": _by_json,
    "POST /jobs, a form": _by_form,
    "a line of a batch or a file": _by_line,
    "PATCH /jobs/ID": _by_another_time,
    "submit --at": partial(_by_command_line, "--at"),
    "submit --time": partial(_by_command_line, "--time"),
}


@slowly
@given(nearly(INSTANT_PATTERN))
@example("2030-01-01T24:00Z")
@example("2030-01-01T00:00:60Z")
@example("")
@example(" ")
def test_every_door_reads_a_time_alike_or_refuses_it(text: str) -> None:
    try:
        instant = parse_utc(text)
    except ValueError:
        instant = None
    for door, read in DOORS.items():
        # A form's space may be a plus that was not escaped: that door alone takes it so.
        if door == "POST /jobs, a form" and submission._LOST_PLUS.search(text):
            continue
        try:
            assert read(text) == instant, door
        except (Invalid, click.BadParameter):
            assert instant is None, door
