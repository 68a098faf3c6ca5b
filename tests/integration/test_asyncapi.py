"""The AsyncAPI document is valid by AsyncAPI's own JSON Schema, with that of its AMQP bindings."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from jsonschema import Draft7Validator

from tests.provision import ROOT

# As AsyncAPI publishes it; `tests.provision` puts it there.
_SCHEMA = ROOT / "tests/npm/node_modules/@asyncapi/specs/schemas/3.0.0.json"


@cache
def _validator() -> Draft7Validator:
    assert _SCHEMA.exists(), "run python -m tests.provision"
    return Draft7Validator(json.loads(_SCHEMA.read_text()))


def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((ROOT / "docs/schemas/asyncapi.json").read_text())
    return document


def test_the_document_is_valid() -> None:
    errors = [
        f"{'/'.join(map(str, error.absolute_path))}: {error.message[:200]}"
        for error in _validator().iter_errors(_document())
    ]
    assert errors == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda document: document.pop("info"),
        lambda document: document["channels"]["submit"].update(adress="job.submit"),
        lambda document: document["channels"]["submit"]["bindings"]["amqp"].update(queue={}),
        lambda document: document["operations"]["submitJob"].update(action="publish"),
        lambda document: document["components"]["messages"]["jobSubmit"].update(payload=7),
    ],
)
def test_the_schema_sees_mistakes(spoil: Callable[[dict[str, Any]], object]) -> None:
    document = copy.deepcopy(_document())
    spoil(document)
    assert not _validator().is_valid(document)
