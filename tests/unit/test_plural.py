"""How many of what: one has no s."""

from __future__ import annotations

import pytest

from atemporal.plural import counted, plural


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "0 lines"), (1, "1 line"), (2, "2 lines"), (12_000, "12000 lines")]
)
def test_just_one_has_no_s(number: int, shown: str) -> None:
    assert counted(number, "line") == shown
    assert shown.endswith(plural(number, "line"))


def test_more_is_said_in_between_and_thousands_can_be_marked() -> None:
    assert counted(1, "line", more="more") == "1 more line"
    assert counted(12_000, "line", more="more", form=",") == "12,000 more lines"
