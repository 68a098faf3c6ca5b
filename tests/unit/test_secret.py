"""Secrets: whatever writes them out writes names, and only who asks has the values."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atemporal.environment import LONGEST
from atemporal.errors import Invalid
from atemporal.model import JobSpec, parse_spec
from atemporal.model.job_spec import read_spec, with_values
from atemporal.model.secret import revealed, without_secrets

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
    ],
)
def test_what_will_not_do_is_refused_by_its_field_and_not_repeated(wrong: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refused:
        parse_spec({"image": "a", **wrong})
    assert {name.partition(".")[0] for name in refused.value.fields} == {"secrets"}
    assert "hush" not in str(refused.value)


def test_an_empty_list_is_php_s_empty_object() -> None:
    assert JobSpec(image="a", secrets=[]).secrets == {}


class TestMessage:
    """Of a message that nobody could use, whatever is wrong with it."""

    @pytest.mark.parametrize(
        "job",
        [
            {"secrets": {"A": "hush"}},
            {"secret": {"A": "hush"}},
            {"Secrets": {"A": {"b": "hush"}}},
            {"secrets": "A=hush"},
            {"secrets": ["hush"]},
            {"env": {"CLIENT_SECRET": "hush"}},
        ],
    )
    def test_what_is_called_a_secret_is_left_out(self, job: Any) -> None:
        for message in (job, {"job": job}, {"schedule": {"job": {"image": "a", **job}}}, [job]):
            shown = without_secrets(json.dumps(message))
            assert shown is not None
            assert "hush" not in shown
            assert len(json.loads(shown)) == len(message)

    def test_a_name_is_read_as_json_reads_it(self) -> None:
        shown = without_secrets('{"s\\u0065crets": {"A": "hush"}}')
        assert shown == '{"secrets": {"A": null}}'

    def test_a_name_that_is_there_twice_hides_nothing(self) -> None:
        assert (
            without_secrets('{"secrets": {"A": "hush"}, "secrets": null}') == '{"secrets": null}'
        )

    @pytest.mark.parametrize("text", ['{"secrets": {"A": "hush"}', "SECRET=hush", "[" * 100_000])
    def test_one_that_can_not_be_read_is_not_shown_if_it_speaks_of_secrets(
        self, text: str
    ) -> None:
        assert without_secrets(text) == (None if "hush" in text else text)

    @given(st.text().filter(lambda text: "secret" not in text.lower()))
    def test_any_other_is_shown_to_the_letter(self, text: str) -> None:
        assert without_secrets(text) == text
