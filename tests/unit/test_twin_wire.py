"""The query protocol: flattened parameters in, EC2's XML out."""

from __future__ import annotations

from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atemporal.twin.ec2 import wire

NAMES = st.text("ABCDEFGabcdefg", min_size=1, max_size=6)
TREES = st.recursive(
    st.text(max_size=20),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=12)
        | st.dictionaries(NAMES, inner, min_size=1, max_size=4)
    ),
    max_leaves=20,
)


def flatten(name: str, value: object) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [pair for key, item in value.items() for pair in flatten(f"{name}.{key}", item)]
    if isinstance(value, list):
        return [p for i, item in enumerate(value, 1) for p in flatten(f"{name}.{i}", item)]
    return [(name, str(value))]


def read_xml(element: ElementTree.Element) -> object:
    if len(element) == 0:
        return element.text or ""
    if all(child.tag == "item" for child in element):
        return [read_xml(child) for child in element]
    return {child.tag: read_xml(child) for child in element}


@given(st.dictionaries(NAMES, TREES, max_size=5))
def test_what_an_sdk_flattens_is_read_back(tree: dict[str, object]) -> None:
    pairs = [pair for name, value in tree.items() for pair in flatten(name, value)]

    assert wire.parse(urlencode(pairs)) == tree


def test_lists_are_in_the_order_of_their_numbers() -> None:
    form = "&".join(f"Id.{n}=i-{n}" for n in (10, 2, 1))

    assert wire.parse(form) == {"Id": ["i-1", "i-2", "i-10"]}


@pytest.mark.parametrize("form", ["A=1&A.1=2", "A.1=2&A=1", "A.B=1&A.B.C=2"])
def test_a_name_is_a_value_or_a_structure(form: str) -> None:
    with pytest.raises(wire.ApiError, match="MalformedQueryString"):
        wire.parse(form)


def test_a_response_is_written_as_xml() -> None:
    response = {
        "reservationSet": [{"id": "r-1", "tags": [{"key": "a<b", "value": "1 & 'x' \r\n é"}]}],
        "yes": True,
        "absent": None,
    }

    document = wire.render("DescribeThings", "request", response).decode()

    root = ElementTree.fromstring(document.replace(f' xmlns="{wire.NAMESPACE}"', ""))
    assert root.tag == "DescribeThingsResponse"
    assert read_xml(root) == {
        "requestId": "request",
        "reservationSet": [{"id": "r-1", "tags": [{"key": "a<b", "value": "1 & 'x' \r\n é"}]}],
        "yes": "true",
    }


@given(st.text())
def test_any_text_makes_a_well_formed_document(text: str) -> None:
    root = ElementTree.fromstring(wire.render_error(wire.ApiError("Code", text), "request"))

    assert root.findtext("Errors/Error/Code") == "Code"
    assert root.findtext("RequestID") == "request"
