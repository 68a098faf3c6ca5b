"""The release before's own tests of its store, on the schema of this one.

Mechanism: in a copy of the kept release the present steps are put beside its own, so that each database
that its tests make has the new schema.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from atemporal.tables import REVISION
from tests.servers.postgres import VARIABLE, Postgres
from tests.upgrade.before import ROOT, STEPS, unpack
from tests.upgrade.keep import TESTS

pytestmark = pytest.mark.timeout(1200)

MAY_FAIL: dict[str, str] = {}
"""Tests that may fail, as pytest names them: and why the release before works all the same."""

ABOUT_THE_SCHEMA = "not TestFairness"
"""How fair a limit is says nothing about a table, and takes long."""
LEAST = 400


def test_they_pass_on_the_new_schema(tmp_path: Path, postgres_server: Postgres) -> None:
    release = unpack(tmp_path / "release")
    for path in (ROOT / STEPS).glob("[0-9]*"):
        shutil.copy(path, release.root / STEPS)
    assert release.step == REVISION
    report = tmp_path / "report.xml"
    done = release.run(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", ABOUT_THE_SCHEMA),
        *(f"--junit-xml={report}", *TESTS),
        env={**_environment(), VARIABLE: postgres_server.url("postgres")},
        within_s=1100,
    )
    cases = ElementTree.parse(report).getroot().findall(".//testcase")
    failed = {
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    }
    assert failed == set(MAY_FAIL), done.stdout
    assert len(cases) > LEAST


def _environment() -> dict[str, str]:
    """Ours, without what the pytest that runs this tells its own processes."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
