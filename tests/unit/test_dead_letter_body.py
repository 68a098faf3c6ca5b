"""What is shown of a dead letter's body, whatever is wrong with its message."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atemporal.messages import BODY_LIMIT
from services.api.dead_letter_body import shown

SECRETS = {"secrets": {"A": "hush"}}


def text_of(body: str | bytes) -> str | None:
    """The text that is shown of it; else why not is told without a word of it."""
    body = body.encode() if isinstance(body, str) else body
    text, why_not = shown(body, len(body))
    assert (text is None) == (why_not is not None)
    assert "hush" not in (why_not or "")
    assert why_not is None or str(len(body)) in why_not
    return text


@pytest.mark.parametrize(
    "job",
    [
        SECRETS,
        {"secret": {"A": "hush"}},
        {"secerts": {"A": "hush"}},
        {"Secrets": {"A": {"b": "hush"}}},
        {"secrets": {"A": {"b": "hush"}}},
        {"secrets": "A=hush"},
        {"secrets": ["hush"]},
        {"payload": "hush"},
        {"env": {"CLIENT_SECRET": "hush"}},
        {"env": {"secerts": {"A": "hush"}}},
        {"env": {"A": ["hush"]}},
        {"env": "A=hush"},
        {"image": SECRETS},
        {"command": [SECRETS]},
        {"command": [["hush"]]},
        {"machine": SECRETS},
        {"env": {"JOB": json.dumps(SECRETS)}},
        {"command": ["run", json.dumps([SECRETS])]},
        {"image": json.dumps(json.dumps(SECRETS))},
        {"image": "\n\ufeff" + json.dumps(SECRETS) + "}"},
        {json.dumps(SECRETS): ""},
        {"secrets": {json.dumps(SECRETS): ""}},
    ],
)
def test_what_may_be_a_secret_is_left_out_wherever_its_job_stands(job: Any) -> None:
    for message in (
        job,
        {"job": job},
        {"jbo": job},
        {"job": json.dumps(job)},
        {"type": "schedule.put", "schedule": {"name": "a", "job": {"image": "a", **job}}},
    ):
        text = text_of(json.dumps(message))
        assert text is not None
        assert "hush" not in text
        assert len(json.loads(text)) == len(message)


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(json.dumps(SECRETS)),
        json.dumps([SECRETS]),
        json.dumps(SECRETS)[:-1],
        "SECRET=hush",
        "hush",
        "[" * 100_000,
        b"\xff" + json.dumps(SECRETS).encode(),
        json.dumps(SECRETS).encode("utf-16"),
    ],
)
def test_what_is_not_one_object_in_utf_8_is_not_shown(body: str | bytes) -> None:
    assert text_of(body) is None


def test_what_is_kept_in_part_is_not_shown() -> None:
    text, why_not = shown(b"{}", BODY_LIMIT + 1)
    assert text is None
    assert "beginning" in (why_not or "")


def test_a_name_is_read_as_json_reads_it() -> None:
    assert text_of('{"s\\u0065crets": {"A": "hush"}}') == '{"secrets": {"A": null}}'


def test_a_name_that_is_there_twice_hides_nothing() -> None:
    assert text_of('{"secrets": {"A": "hush"}, "secrets": null}') == '{"secrets": null}'


def test_half_of_a_surrogate_pair_is_shown_as_json_writes_it() -> None:
    assert text_of('{"key": "\\ud800", "no": 1}') == '{"key": "\\ud800", "no": null}'


def test_what_is_known_is_shown_to_the_letter() -> None:
    job = (
        '{"image" : 1, "command": ["sh", "-c", "true"], "env": {"A": "b"}, "labels":{"a": "b"},'
        ' "machine": {"instance_types": ["t3.small"], "market": "spot"}, "secrets": {}, "ports": []}'
    )
    for body in (
        job,
        '{"type":"job.submit","v":1, "job":' + job + "}",
        '{"type":"schedule.put","v":1,"serial":3,"schedule":{"name":"a","cron":"@daily","job":'
        + job
        + "}}",
        '{"type": "job.due", "v": 1, "job_id": "x", "attempt": "one"}',
        '{"type": "schedule.run", "v": 2, "name": "nightly", "key": "k"}',
    ):
        assert text_of(body) == body


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), _VALUES))
def test_whatever_it_is_can_be_sent_and_shows_no_unknown_field(body: dict[str, Any]) -> None:
    text = text_of(json.dumps({**body, "unknown": body}))
    assert text is not None
    assert json.loads(text.encode())["unknown"] is None


def test_a_reference_is_shown_and_what_stands_in_its_place_is_not() -> None:
    assert text_of('{"secret_refs": {"A": "ssm:/team/password", "B": "hush", "C": ["hush"]}}') == (
        '{"secret_refs": {"A": "ssm:/team/password", "B": null, "C": null}}'
    )
    assert text_of('{"secret_refs": ["hush"]}') == '{"secret_refs": null}'
