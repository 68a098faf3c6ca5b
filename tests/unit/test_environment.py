"""Environments and the payload format."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atemporal import environment


def test_the_sample_payload() -> None:
    payload = base64.encodebytes(b"NAME=bond, james bond!\n").decode()
    assert environment.decode_payload(payload) == {"NAME": "bond, james bond!"}


def test_a_payload_posted_unescaped_and_wrapped_reads_the_same() -> None:
    env = {"A": "x~~>" * 60, "B": "é=="}
    payload = environment.encode_payload(env)
    wrapped = "\n".join(payload[at : at + 76] for at in range(0, len(payload), 76))
    assert "+" in wrapped
    assert environment.decode_payload(wrapped.replace("+", " ")) == env


def test_lines_are_verbatim() -> None:
    text = "A= x \r\n\n# no\n  B='q' \"$Z\" %\nC=\nD=a=b\u2028c\x0b"
    assert environment.parse_lines(text) == {
        "A": " x ",
        "B": "'q' \"$Z\" %",
        "C": "",
        "D": "a=b\u2028c\x0b",
    }


@pytest.mark.parametrize("payload", ["%%%", "AAA", base64.b64encode(b"\xff=1").decode()])
def test_what_is_no_payload_is_refused(payload: str) -> None:
    with pytest.raises(ValueError):
        environment.decode_payload(payload)


@pytest.mark.parametrize("line", ["NAME", "1A=x", "A B=x", "=x"])
def test_a_bad_line_is_named(line: str) -> None:
    with pytest.raises(ValueError, match="line 2"):
        environment.parse_lines(f"A=1\n{line}")


@pytest.mark.parametrize(
    "env",
    [{"A B": ""}, {"": "x"}, {"É": "x"}, {"A\n": "x"}, {"A": "x\0"}, {"ATEMPORAL_X": "1"}],
)
def test_names_and_values_that_no_container_could_get(env: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        environment.check(env)


def test_a_refused_value_is_not_repeated() -> None:
    with pytest.raises(ValueError) as refusal:
        environment.check({"A": "secret\0"})
    assert "secret" not in str(refusal.value)


_VALUES = st.text(st.characters(exclude_characters="\0\n\r", exclude_categories=["Cs"]))


@given(st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True), _VALUES))
def test_a_payload_reads_back(env: dict[str, str]) -> None:
    assert environment.decode_payload(environment.encode_payload(env)) == env


def test_a_byte_order_mark_is_passed_over() -> None:
    assert environment.parse_lines("\ufeffA=1\nB=\ufeff2\n") == {"A": "1", "B": "\ufeff2"}
    payload = base64.b64encode("\ufeffNAME=bond\n".encode()).decode()
    assert environment.decode_payload(payload) == {"NAME": "bond"}


def test_a_carriage_return_ends_no_line() -> None:
    assert environment.parse_lines("A=1\rB=2\r\nC=3\r\r\n") == {"A": "1\rB=2", "C": "3\r"}


def test_a_name_alone_takes_the_callers_value_where_there_is_a_caller() -> None:
    own = {"HOME": "/home/bond", "EMPTY": ""}.get
    text = "HOME\nEMPTY\nABSENT\nA=b\n"
    assert environment.parse_lines(text, own=own) == {"HOME": "/home/bond", "EMPTY": "", "A": "b"}
    with pytest.raises(ValueError, match="line 1 has no '='"):
        environment.parse_lines(text)
