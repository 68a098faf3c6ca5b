"""Secrets: whatever writes them out writes names, and only who asks has the values."""

from __future__ import annotations

import json
from typing import Any

import pytest

from atemporal.environment import LONGEST
from atemporal.errors import Invalid
from atemporal.model import JobSpec, parse_spec
from atemporal.model.job_spec import read_spec, with_values
from atemporal.model.secret import revealed
from atemporal.userdata import check_fits, delivery_of

SPEC = parse_spec({"image": "a", "env": {"A": "1"}, "secrets": {"C": "hush", "B": "hush\nhush"}})


@pytest.mark.parametrize(
    "written",
    [repr(SPEC), str(SPEC), f"{dict(SPEC)}", SPEC.model_dump_json(), str(SPEC.model_dump())],
)
def test_no_way_of_writing_a_specification_has_a_value(written: str) -> None:
    assert "hush" not in written


def test_names_are_shown_in_order_each_with_null() -> None:
    assert json.loads(SPEC.model_dump_json())["secrets"] == {"B": None, "C": None}


def test_what_is_stored_has_them_and_is_read_again() -> None:
    stored = json.loads(json.dumps(with_values(SPEC, exclude={"key"})))
    assert stored["secrets"] == {"B": "hush\nhush", "C": "hush"}
    assert revealed(read_spec(stored, None).secrets) == stored["secrets"]


def test_a_job_of_an_earlier_release_has_none_and_is_delivered_as_it_was() -> None:
    old = read_spec({"image": "a", "env": {"A": "1"}}, None)
    assert (old.secrets, old.delivery) == ({}, "auto")


@pytest.mark.parametrize(
    "wrong",
    [
        {"secrets": "hush"},
        {"secrets": ["hush"]},
        {"secrets": {"A": ["hush"]}},
        {"secrets": {"A": 5, "B": "hush"}},
        {"secrets": {"hush hush": "x"}},
        {"secrets": {"ATEMPORAL_X": "hush"}},
        {"secrets": {"A": "hush\0"}},
        {"secrets": {"A": "hush\ud800"}},
        {"secrets": {"A": "hush"}, "env": {"A": "hush"}},
        {"secrets": {"A": None, "B": "hush"}},
        {"secrets": {"A": "hush" * LONGEST}},
        {"secrets": {"A": "ssm:/hush"}},
        {"secrets": {"A": "secretsmanager:hush"}},
    ],
)
def test_what_will_not_do_is_refused_by_its_field_and_not_repeated(wrong: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refused:
        parse_spec({"image": "a", **wrong})
    assert {name.partition(".")[0] for name in refused.value.fields} == {"secrets"}
    assert "hush" not in str(refused.value)


def test_an_empty_list_is_php_s_empty_object() -> None:
    assert JobSpec(image="a", secrets=[]).secrets == {}


class TestByReference:
    @pytest.mark.parametrize(
        "reference",
        [
            "ssm:/team/db/password",
            "ssm:password",
            "ssm:/team/password:3",
            "ssm:arn:aws:ssm:eu-central-1:123456789012:parameter/team/password",
            "secretsmanager:team/password",
            "secretsmanager:rds!db-1234-abcd#password",
            "ssm:/team/db#user",
            "secretsmanager:arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:a-AbCdEf",
        ],
    )
    def test_it_is_shown_stored_and_read_as_it_is(self, reference: str) -> None:
        spec = parse_spec({"image": "a", "secret_refs": {"B": reference, "A": "ssm:x"}})
        assert list(spec.secret_refs.items()) == [("A", "ssm:x"), ("B", reference)]
        stored = json.loads(json.dumps(with_values(spec, exclude={"key"})))
        assert read_spec(stored, None).secret_refs == spec.secret_refs

    @pytest.mark.parametrize(
        "wrong",
        [
            {"A": "hush"},
            {"A": "ssm:"},
            {"A": "ssm:/"},
            {"A": "ssm:/hush/"},
            {"A": "ssm://hush"},
            {"A": "ssm:hush/hush"},
            {"A": "ssm:hush#"},
            {"A": "ssm:hush hush"},
            {"A": 'ssm:hush","WithDecryption":false,"x":"'},
            {"A": "ssm:hush\n"},
            {"A": "vault:hush"},
            {"A": "secretsmanager:hush:key::"},
            {"A": "ssm:" + "hush" * 600},
            {"A": None},
            {"ATEMPORAL_X": "ssm:hush"},
            {"hush hush": "ssm:x"},
        ],
    )
    def test_what_refers_to_nothing_is_refused_and_not_repeated(self, wrong: Any) -> None:
        with pytest.raises(Invalid) as refused:
            parse_spec({"image": "a", "secret_refs": wrong})
        assert {name.partition(".")[0] for name in refused.value.fields} == {"secret_refs"}
        assert "hush" not in str(refused.value)

    @pytest.mark.parametrize("other", ["env", "secrets"])
    def test_a_variable_is_given_once(self, other: str) -> None:
        with pytest.raises(Invalid, match="one value"):
            parse_spec({"image": "a", other: {"A": "1"}, "secret_refs": {"A": "ssm:x"}})

    def test_a_job_that_has_some_is_delivered_by_claim(self) -> None:
        spec = {"image": "a", "secret_refs": {"A": "ssm:x"}}
        assert delivery_of(parse_spec(spec)) == "claim"
        check_fits(parse_spec(spec))
        with pytest.raises(Invalid, match="by claim"):
            check_fits(parse_spec({**spec, "delivery": "inline"}))
