"""The list of mistakes follows the code: each has its place, each test it names is there."""

from __future__ import annotations

import pytest

from tests.sabotage import ROOT, SABOTAGES, Sabotage


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda sabotage: sabotage.title)
def test_a_mistake_can_be_made_and_its_tests_are_there(sabotage: Sabotage) -> None:
    assert (ROOT / sabotage.file).read_text().count(sabotage.right) == 1
    for test in sabotage.tests:
        file, *names = test.split("::")
        source = (ROOT / "tests" / file).read_text()
        for name in names:
            assert f"class {name}" in source or f"def {name}(" in source, test
