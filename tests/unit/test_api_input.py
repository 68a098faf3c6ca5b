"""What clients and machines send, and how the API reads it: no server, no database."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import urlencode

import pytest

from atemporal.clock import format_utc
from atemporal.errors import Conflict, Invalid
from atemporal.model import LOG_TAIL_LIMIT, Attempt
from atemporal.states import AttemptState, Reason
from services.api import exit_report, request_body
from services.api.auth import is_loopback
from services.api.submission import documentation, specification
from tests.launches import LAUNCH

FORM = "application/x-www-form-urlencoded"
LINES = "NAME=bond, james bond!\n" + "".join(f"N{number}=value>>>???\n" for number in range(20))
WRAPPED = base64.encodebytes(LINES.encode()).decode()


def refusal(**given: Any) -> dict[str, str]:
    with pytest.raises(Invalid) as caught:
        specification(given)
    return caught.value.fields


def test_a_form_as_curl_sends_it_and_one_that_is_escaped_mean_the_same() -> None:
    assert "\n" in WRAPPED
    assert "+" in WRAPPED
    raw = request_body.fields(f"image=nginx:1.9&payload={WRAPPED}".encode(), FORM)
    escaped = request_body.fields(
        urlencode({"image": "nginx:1.9", "payload": WRAPPED}).encode(), FORM
    )
    spec = specification(raw)
    assert spec == specification(escaped)
    assert spec.env["NAME"] == "bond, james bond!"
    assert spec.env["N19"] == "value>>>???"


@pytest.mark.parametrize("kind", ["application/json", "application/merge-patch+json", FORM, ""])
def test_json_is_known_by_its_content_type_or_by_its_brace(kind: str) -> None:
    assert request_body.fields(b' {"image": "nginx"}', kind) == {"image": "nginx"}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"[1]", "application/json"),
        (b"{", "application/json"),
        (b"", "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"{" + b"1" * 10_000 + b"}", FORM),
        (b"image=%ff", FORM),
        (b"image=\xff", FORM),
        (b"a=1&" * 200, FORM),
        (b"image=a", "multipart/form-data; boundary=x"),
    ],
)
def test_a_body_that_is_neither_form_nor_json_is_refused(body: bytes, kind: str) -> None:
    with pytest.raises(Invalid) as caught:
        request_body.fields(body, kind)
    assert list(caught.value.fields) == ["body"]


def test_a_form_field_given_twice_is_refused_by_name() -> None:
    with pytest.raises(Invalid, match="image: given more than once"):
        request_body.fields(b"image=a&image=b", FORM)


def test_the_originals_field_names_and_ours_mean_the_same() -> None:
    payload = base64.b64encode(b"A=1\n").decode()
    ours = specification({"image": "a", "run_at": "2015-04-25T05:27:27.069Z", "env": {"A": "1"}})
    assert ours == specification(
        {"image": "a", "time": "2015-04-25T05:27:27.069Z", "payload": payload}
    )
    assert ours.time is not None
    assert format_utc(ours.time) == "2015-04-25T05:27:27.069Z"


def test_no_time_and_no_payload_are_absent_and_an_empty_time_is_refused() -> None:
    spec = specification({"image": "a", "time": None, "payload": "", "env": {"A": "1"}})
    assert spec.time is None
    assert spec.env == {"A": "1"}
    for name in ("time", "run_at"):
        for empty in ("", "  "):
            assert "is empty" in refusal(**{"image": "a", name: empty})[name]


def test_every_bad_field_is_named_as_the_client_called_it() -> None:
    payload = base64.b64encode(b"1A=secret\n").decode()
    fields = refusal(image="nginx; reboot", time="soon", payload=payload, colour="red")
    assert fields.keys() == {"image", "time", "payload", "colour"}
    assert "secret" not in str(fields)
    assert "ATEMPORAL_" in refusal(image="a", payload=_b64("ATEMPORAL_X=1"))["payload"]
    assert refusal(image="a", payload="???")["payload"].startswith("not base64")
    assert refusal(image="a", time=7)["time"].startswith("is not text")
    assert refusal(image="a", payload=[])["payload"] == "is not text"


def test_a_field_given_under_both_names_is_refused() -> None:
    assert refusal(image="a", payload=_b64("A=1"), env={})["payload"].endswith("not both")
    both = refusal(image="a", time="2015-04-25", run_at="2015-04-25T00:00:00Z")
    assert both["time"].endswith("not both")


def test_the_key_comes_from_the_header_or_the_field_but_is_one() -> None:
    assert specification({"image": "a"}, key="k").key == "k"
    assert specification({"image": "a", "key": "k"}, key="k").key == "k"
    with pytest.raises(Invalid, match="Idempotency-Key"):
        specification({"image": "a", "key": "k"}, key="other")


@pytest.mark.parametrize(
    "given",
    [
        {"key": "a\0b"},
        {"labels": {"a": "\ud800"}},
        {"command": ["\udfff"]},
        {"time": "9999-12-31T23:59:59-12:00"},
        {"run_at": "0001-01-01T00:00:00+12:00"},
        {"ports": ["٣:80"]},
    ],
)
def test_a_value_that_postgres_or_a_clock_can_not_hold_is_refused(given: dict[str, Any]) -> None:
    assert refusal(image="a", **given).keys() == given.keys()


def test_the_documented_body_of_a_submit_is_the_accepted_one() -> None:
    content = documentation()["content"]
    names = content["application/json"]["schema"]["properties"].keys()
    example = {"image": "a"}
    for name in names - {"image"}:
        assert "unknown field" not in str(_attempted(example | {name: object()}))
    assert content[FORM]["schema"]["properties"].keys() == {"image", "time", "payload"}
    assert "$ref" not in json.dumps(content)


def _attempted(given: dict[str, Any]) -> dict[str, str]:
    try:
        specification(given)
    except Invalid as error:
        return error.fields
    return {}


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def record(**fields: Any) -> bytes:
    return json.dumps({"phase": "run", "exit_code": 7, "claim": "c", **fields}).encode()


def test_a_good_exit_record_is_taken_whole() -> None:
    end = exit_report.read(record(log_tail=_b64("hello"), started_at="2026-01-01T00:00:00Z"))
    assert end.detail is None
    assert end.reason is Reason.EXIT_NONZERO
    assert end.record is not None
    assert (end.record.exit_code, end.record.log_tail) == (7, b"hello")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("log_tail", 7),
        ("log_tail", "caf\u00e9"),
        ("started_at", "yesterday"),
        ("finished_at", "2026-01-01T00:00:00"),
        ("service_result", "x" * 100),
        ("oom_killed", "perhaps"),
        ("phase", "lunch"),
        ("instance_id", {"a": 1}),
    ],
)
def test_a_damaged_field_of_an_exit_record_costs_that_field_alone(field: str, value: Any) -> None:
    end = exit_report.read(record(**{field: value}))
    assert end.record is not None
    assert end.record.exit_code == 7
    assert end.reason is Reason.EXIT_NONZERO
    assert end.detail == f"its exit record was damaged in: {field}"


def test_the_log_of_an_exit_record_is_cut_to_its_end() -> None:
    log = b"a" * 4 * LOG_TAIL_LIMIT + b"the end"
    end = exit_report.read(record(log_tail=base64.b64encode(log).decode()))
    assert end.record is not None
    assert end.record.log_tail == log[-LOG_TAIL_LIMIT:]
    assert end.record.exit_code == 7


def test_an_exit_code_that_can_not_be_one_leaves_the_exit_unreported() -> None:
    end = exit_report.read(record(exit_code=4711))
    assert end.reason is Reason.UNREPORTED
    assert end.detail == "its exit record was damaged in: exit_code"


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b"exit_code=0", None, b"", b" \n"]
)
def test_an_exit_without_a_readable_record_is_unreported(body: bytes | None) -> None:
    end = exit_report.read(body)
    assert end.reason is Reason.UNREPORTED
    assert end.record is None
    assert (end.detail is None) == (body is not None and not body.strip())


def test_another_machines_exit_record_is_refused() -> None:
    attempt = Attempt.model_validate(
        {
            "job_id": "00000000-0000-7000-8000-000000000000",
            "number": 1,
            "state": AttemptState.RUNNING,
            "launch": LAUNCH,
            "instance_id": "i-1",
            "claim": "c",
            "created_at": "2026-01-01T00:00:00Z",
        }
    )
    exit_report.read(record(instance_id="i-1")).check_machine(attempt)
    exit_report.read(b"").check_machine(attempt)
    # Who was granted the claim is believed, whatever EC2 has called the instance since.
    exit_report.read(record(instance_id="i-2")).check_machine(attempt)
    unproven = {"claim": None, "instance_id": "i-2"}
    for wrong in ({"claim": "d"}, {"claim": ["c"]}, {"claim": "c" * 99}, unproven):
        with pytest.raises(Conflict):
            exit_report.read(record(**wrong)).check_machine(attempt)
    unclaimed = attempt.model_copy(update={"claim": None, "instance_id": None})
    exit_report.read(record(instance_id="i-9")).check_machine(unclaimed)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_a_loopback_host_is_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "127.1", "example.com", "", "*"])
def test_any_other_host_is_not_surely_this_machine(host: str) -> None:
    assert not is_loopback(host)
