"""The list of mistakes follows the code: each has its place, each test it names is there."""

from __future__ import annotations

import pytest

from tests.mutants import MUTANTS, ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.title)
def test_a_mistake_can_be_made_and_its_tests_are_there(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text().count(mutant.right) == 1
    for test in mutant.tests:
        file, *names = test.split("::")
        source = (ROOT / "tests" / file).read_text()
        for name in names:
            assert f"class {name}" in source or f"def {name}(" in source, test
