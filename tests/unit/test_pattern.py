"""A published pattern means the same to every team's validator, also to one without look-around."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from pydantic_core import SchemaError, SchemaValidator, ValidationError, core_schema

from atemporal.clock import INSTANT_PATTERN
from atemporal.environment import NAME_PATTERN, NO_NAME_PATTERN
from atemporal.image import ID_PATTERN, PATTERN
from tests.unit.test_schema import as_python, nearly, slowly

SCHEMAS = Path(__file__).parents[2] / "docs/schemas"


def patterns(value: Any) -> Iterator[str]:
    """Every pattern of a schema."""
    if isinstance(value, dict):
        if isinstance(pattern := value.get("pattern"), str):
            yield pattern
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from patterns(inner)


def without_look_around(pattern: str) -> SchemaValidator:
    """The pattern in Rust's engine, which refuses what Go's RE2 does."""
    return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))


PUBLISHED = sorted(
    {one for path in SCHEMAS.glob("*.json") for one in patterns(json.loads(path.read_text()))}
)


def test_the_forms_of_the_code_are_published() -> None:
    forms = {PATTERN, ID_PATTERN, NAME_PATTERN, NO_NAME_PATTERN, INSTANT_PATTERN}
    assert forms < set(PUBLISHED)


@pytest.mark.parametrize("pattern", [r"^a$(?!\n)", "^(?=a)", "(?<!a)$", r"(a)\1"])
def test_the_engine_refuses_what_not_all_can_compile(pattern: str) -> None:
    with pytest.raises(SchemaError):
        without_look_around(pattern)


@pytest.mark.parametrize("pattern", PUBLISHED)
def test_a_published_pattern_means_the_same_without_look_around(pattern: str) -> None:
    engine, ours = without_look_around(pattern), re.compile(as_python(pattern))

    @settings(slowly, max_examples=50)
    @given(nearly(pattern))
    def agree(text: str) -> None:
        try:
            engine.validate_python(text)
        except ValidationError:
            assert not ours.search(text)
        else:
            assert ours.search(text)

    agree()
