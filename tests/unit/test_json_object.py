"""JSON is read strictly, and the same at every door."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

import pytest

from atemporal.errors import Invalid
from atemporal.json_object import read_object
from atemporal.messages import SUBMIT, decode
from services.api import request_body

DOORS: dict[str, Callable[[bytes], Any]] = {
    "itself": read_object,
    "http": lambda body: request_body.fields(body, request_body.JSON),
    "form": lambda body: request_body.fields(body, request_body.FORM),
    "message": lambda body: decode(SUBMIT, body),
}


@pytest.mark.parametrize("read", DOORS.values(), ids=DOORS)
@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"image":"busybox","image":"nginx"}', "'image' twice"),
        (b'{"image":"a","env":{"A":"1","A":"1"}}', "'A' twice"),
        (b'{"image":"a","machine":{"disk_gb":8,"disk_gb":9}}', "'disk_gb' twice"),
        (b'{"image":"a","labels":{"a":"1","\\u0061":"2"}}', "'a' twice"),
        (b'{"image":"a","timeout_s":NaN}', "is not JSON"),
        (b'{"image":"a","timeout_s":Infinity}', "is not JSON"),
        (b"{'image':'a'}", "is not JSON"),
        (b'{"image":"a",}', "is not JSON"),
        pytest.param(b'{"a":' + b"[" * 200_000, "is not JSON", id="nested too deep"),
        pytest.param(b'{"a":' + b'{"a":' * 200_000, "is not JSON", id="objects nested too deep"),
        pytest.param(b'{"a":' + b"9" * 200_000 + b"}", "is not JSON", id="a number too long"),
    ],
)
def test_json_is_read_strictly(read: Callable[[bytes], Any], body: bytes, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        read(body)


@pytest.mark.parametrize("name", ["itself", "http", "message"])
def test_a_compressed_body_says_so(name: str) -> None:
    with pytest.raises(Invalid, match="gzip; send plain JSON"):
        DOORS[name](gzip.compress(b'{"image":"a"}'))


def test_an_object_is_read_as_it_is() -> None:
    body = b'{"a": 1, "b": {"a": 2.0}, "c": [{"a": null}, {"a": true}]}'
    assert read_object(body) == {"a": 1, "b": {"a": 2.0}, "c": [{"a": None}, {"a": True}]}
