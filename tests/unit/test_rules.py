"""The rules for Prometheus: they say what their own tests expect, and name metrics that there are."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.metrics import documented

RULES = sorted((Path(__file__).parents[2] / "deploy/prometheus").glob("*.rules.yml"))


def promtool(*words: str | Path) -> str:
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("rules", RULES, ids=lambda path: path.stem)
def test_rules_are_valid_and_say_what_is_expected(rules: Path) -> None:
    promtool("check", "rules", rules)
    promtool("test", "rules", rules.with_name(rules.name.replace(".rules.", ".test.")))


@pytest.mark.parametrize("rules", RULES, ids=lambda path: path.stem)
def test_rules_name_metrics_that_there_are(rules: Path) -> None:
    named = set(re.findall(r"\batemporal_\w+", rules.read_text()))
    assert named
    known = documented().keys()
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in named} <= known
