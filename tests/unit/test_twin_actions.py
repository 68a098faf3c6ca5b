"""The table of actions is the only list of them: faults, limits and DryRun know each by it."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from atemporal.twin.ec2.api import ACTIONS
from atemporal.twin.faults.kind import KINDS
from atemporal.twin.host import Pace
from atemporal.twin.server import Twin


@pytest.fixture
def twin(tmp_path: Path) -> Iterator[Twin]:
    with Twin(tmp_path, engine="process", pace=Pace(pending_s=1000)) as twin:
        yield twin


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_for_an_action_that_there_is(kind: str) -> None:
    assert KINDS[kind].call in ("*", *ACTIONS)


def test_any_action_of_the_table_can_be_made_to_fail(twin: Twin) -> None:
    for name in ACTIONS:
        twin.faults.add("throttle", call=name, times=1)

    assert {error_of(twin, name) for name in ACTIONS} == {"RequestLimitExceeded"}
    assert twin.faults.counts() == {"throttle": len(ACTIONS)}


@pytest.mark.parametrize("name", ACTIONS)
def test_a_dry_run_of_any_action_does_nothing(twin: Twin, name: str) -> None:
    assert error_of(twin, f"{name}&DryRun=true") == "DryRunOperation"
    assert error_of(twin, "ReleaseHosts&DryRun=true") == "InvalidAction"


def error_of(twin: Twin, action: str) -> str:
    request = urllib.request.Request(twin.url, f"Action={action}".encode())
    try:
        urllib.request.urlopen(request).close()
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode().partition("<Code>")[2].partition("<")[0]
    return ""
