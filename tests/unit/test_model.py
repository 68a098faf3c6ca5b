"""Specifications are checked once, with words for the reader."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any, get_type_hints

import pytest
from pydantic import ValidationError

from atemporal.errors import Invalid
from atemporal.model import ExitRecord, JobSpec, parse_spec, read_spec
from atemporal.states import Reason


def test_a_specification_is_normalised() -> None:
    spec = parse_spec(
        {"image": "nginx", "env": {"B": "2", "A": "1"}, "run_at": "2030-01-01T01:00:00+01:00"}
    )
    assert spec.image == "docker.io/library/nginx:latest"
    assert list(spec.env) == ["A", "B"]
    assert spec.time is not None
    assert spec.time.isoformat() == "2030-01-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("command", "sh -c x", "write a list of strings"),
        ("ports", {}, "write a list of strings"),
        ("retry_on", "75", "write a list of numbers"),
        ("env", ["A=b"], "write an object"),
        ("machine", "t3.small", "write an object"),
        ("command", ["", "x"], "its first element, the program to run, is empty"),
        ("key", "", "it is empty; give some text, or leave it out"),
    ],
)
def test_the_reason_is_for_who_wrote_json(field: str, value: Any, why: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_spec({"image": "nginx", field: value})
    assert refused.value.fields == {field: why}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image", "no image"),
        ("image", None),
        ("command", ["a\0b"]),
        ("command", "sh -c x"),
        ("env", {"A B": "1"}),
        ("env", {"A": 1}),
        ("run_at", "20300425"),
        ("run_at", "2030-04-25"),
        ("run_at", "1900000000"),
        ("run_at", 1_900_000_000),
        ("run_at", 1.9e9),
        ("run_at", True),
        ("run_at", ""),
        ("run_at", datetime(2030, 1, 1)),  # noqa: DTZ001 - without a zone
        ("delay_s", -1),
        ("timeout_s", 0),
        ("max_attempts", 0),
        ("ports", ["80"]),
        ("ports", ["80:99999"]),
        ("ports", ["80:80", "80:81"]),
        ("ports", ["80:80", "080:80/tcp"]),
        ("ports", ["53:53/udp", "53:54/udp"]),
        ("labels", {"a b": "x"}),
        ("labels", {"a": "x\0"}),
        ("key", ""),
        ("key", "a\0"),
        ("machine", {"instance_types": ["big one"]}),
        ("machine", {"disk_gb": 1}),
        ("colour", "red"),
    ],
)
def test_a_bad_field_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(Invalid) as refusal:
        parse_spec({"image": "nginx", field: value})
    assert any(name.split(".")[0] == field for name in refusal.value.fields), refusal.value.fields


NUMBERS = [name for name, kind in get_type_hints(JobSpec).items() if kind in (int, int | None)]


@pytest.mark.parametrize("value", [True, "60", 60.0, 1e2, [60], {}])
@pytest.mark.parametrize("field", NUMBERS)
def test_no_value_is_bent_to_a_number(field: str, value: Any) -> None:
    with pytest.raises(Invalid) as refusal:
        parse_spec({"image": "nginx", field: value})
    assert refusal.value.fields.keys() == {field}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("retry_on", [True]),
        ("no_retry_on", ["75"]),
        ("machine", {"disk_gb": "20"}),
        ("machine", {"disk_gb": 2e1}),
        ("machine", {"capacity_type": "spot", "market": "on-demand"}),
        ("env", {"A": 1}),
        ("env", {"A": True}),
        ("labels", {"a": 1}),
        ("command", "sleep 1"),
        ("command", ["sleep", 1]),
        ("image", 7),
        ("key", 7),
    ],
)
def test_no_value_inside_another_is_bent(field: str, value: Any) -> None:
    with pytest.raises(Invalid) as refusal:
        parse_spec({"image": "nginx", field: value})
    assert any(name.split(".")[0] == field for name in refusal.value.fields)


@pytest.mark.parametrize("field", ["env", "labels", "machine"])
def test_an_empty_list_is_phps_empty_object(field: str) -> None:
    assert parse_spec({"image": "nginx", field: []}) == parse_spec({"image": "nginx"})
    with pytest.raises(Invalid):
        parse_spec({"image": "nginx", field: ["A=1"]})


def test_two_protocols_of_one_port_are_two_ports() -> None:
    ports = ("53:53/udp", "53:53/tcp", "80:8080", "81:8080")
    assert parse_spec({"image": "nginx", "ports": ports}).ports == ports


def test_a_refused_environment_is_not_repeated() -> None:
    with pytest.raises(Invalid) as refusal:
        parse_spec({"image": "nginx", "env": {"A": "hush\0"}})
    assert "hush" not in str(refusal.value)


def test_a_specification_does_not_print_its_environment() -> None:
    assert "hush" not in repr(parse_spec({"image": "nginx", "env": {"A": "hush"}}))


def test_one_time_only() -> None:
    with pytest.raises(Invalid, match="not both"):
        parse_spec({"image": "nginx", "delay_s": 1, "run_at": "2030-01-01T00:00:00Z"})


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"exit_code": 0}, Reason.COMPLETED),
        ({"exit_code": 7}, Reason.EXIT_NONZERO),
        ({"exit_code": 143}, Reason.SIGNALLED),
        ({"exit_code": 255}, Reason.EXIT_NONZERO),
        ({"exit_code": 143, "interrupted": True}, Reason.SPOT_INTERRUPTED),
        ({"exit_code": 137, "oom_killed": True}, Reason.OUT_OF_MEMORY),
        ({"exit_code": 0, "oom_killed": True}, Reason.COMPLETED),
        ({"oom_killed": True}, Reason.OUT_OF_MEMORY),
        ({"exit_code": 143, "stopped": True}, Reason.INSTANCE_LOST),
        ({"exit_code": 143, "stopped": True, "interrupted": True}, Reason.SPOT_INTERRUPTED),
        ({"exit_code": 143, "stopped": True, "timed_out": True}, Reason.TIMED_OUT),
        ({"phase": "pull", "definite": True}, Reason.IMAGE_REFUSED),
        ({"exit_code": 137, "timed_out": True}, Reason.TIMED_OUT),
        ({"phase": "pull"}, Reason.PULL_FAILED),
        ({"phase": "create"}, Reason.CREATE_FAILED),
        ({"phase": "start", "exit_code": 127}, Reason.START_FAILED),
        ({}, Reason.UNREPORTED),
        ({"claim": "c"}, Reason.INSTANCE_LOST),
        ({"claim": "c", "started_at": "2030-01-01T00:00:00Z"}, Reason.UNREPORTED),
        ({"claim": "c", "exit_code": 0}, Reason.COMPLETED),
    ],
)
def test_an_exit_record_names_its_reason(record: dict[str, Any], reason: Reason) -> None:
    assert ExitRecord.model_validate(record).reason is reason


@pytest.mark.parametrize(
    ("phase", "words", "hint"),
    [
        ("pull", "write /var/lib/docker/tmp/GetImageBlob1: no space left on device", True),
        ("pull", "failed to register layer: write /x: Disk quota exceeded", True),
        ("create", "Error response from daemon: mkdir /x: no space left on device", True),
        ("start", "mkdir /run/x: no space left on device", True),
        ("pull", "denied: access forbidden", False),
        # The program's own words, about a disk of its own.
        ("run", "tar: /data: no space left on device", False),
    ],
)
def test_a_disk_that_is_too_small_is_said_in_a_sentence(
    phase: str, words: str, hint: bool
) -> None:
    log = base64.b64encode(words.encode())
    record = ExitRecord.model_validate({"phase": phase, "definite": True, "log_tail": log})
    assert ("disk_gb" in (record.detail or "")) is hint


def test_what_was_written_is_read_back_the_same() -> None:
    spec = parse_spec(
        {
            "image": "nginx",
            "command": ["a", "b"],
            "env": {"B": "2", "AA": "1"},
            "run_at": "2030-01-01T01:00:00+01:00",
            "labels": {"b": "", "aa": "x"},
            "retry_on": [75],
            "machine": {"instance_types": ["t3.small"], "disk_gb": 20},
            "key": "k",
        }
    )
    stored = spec.model_dump(mode="json", exclude={"key"})
    # As the database gives it back: the shorter names first.
    stored["env"] = {"B": "2", "AA": "1"}
    read = read_spec(stored, "k")
    assert read == spec
    assert list(read.env) == ["AA", "B"]
    assert list(read.labels) == ["aa", "b"]
    assert read.model_dump_json() == spec.model_dump_json()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("command", ["", "x"]),
        ("image", "no image"),
        ("priority", 1000),
        ("retry_on", [0]),
        ("ports", ["80"]),
        ("labels", {"a b": "x"}),
        ("env", {"A B": "1"}),
    ],
)
def test_what_an_earlier_release_accepted_can_be_read(field: str, value: Any) -> None:
    spec = read_spec({"image": "nginx", field: value, "newer": 1}, None)
    found = getattr(spec, field)
    assert (list(found) if isinstance(found, tuple) else found) == value
    assert (
        read_spec({"image": "nginx", "machine": {"disk_gb": 1, "x": 1}}, None).machine.disk_gb == 1
    )


@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"image": 7},
        {"image": "nginx", "env": ["A=b"]},
        {"image": "nginx", "machine": 1},
        [],
        None,
    ],
)
def test_what_is_no_specification_can_not_be_read(stored: Any) -> None:
    with pytest.raises(ValidationError):
        read_spec(stored, None)
