"""An upgrade as the runbook has it, kind by kind and all the way back, with jobs at every step.

Promise: whichever processes of the two releases run together on the way, every job ends as it must,
none runs twice, and no instance is left. A machine of one release reports to the APIs of the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from atemporal.states import JobState
from deploy.production.rollout import ORDER
from tests.e2e.system import SERVICES, TwinProcess
from tests.upgrade.before import Before
from tests.upgrade.rolling import Rolling, before

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture
def system(
    tmp_path: Path, database_url: str, broker_url: str, twin: TwinProcess, release: Before
) -> Iterator[Rolling]:
    system = Rolling(tmp_path, twin, release, database_url=database_url, broker_url=broker_url)
    yield system
    system.close()


def test_up_and_back_kind_by_kind(system: Rolling, tmp_path: Path) -> None:
    system.start(*before(*SERVICES))
    up = [(f"{kind}-before", kind) for kind in ORDER]
    back = [(kind, old) for old, kind in reversed(up)]
    for way, steps in (("up", up), ("back", back)):
        # Its machine lives through all steps: it is of one release, and reports to the other.
        sign = tmp_path / way
        long = system.hold_until(sign)
        system.wait_state(long, JobState.RUNNING)
        for old, new in steps:
            system.start(new)
            system.every_kind()
            # In the midst of what it may have begun.
            system.stop(old)
            if way == "up":
                system.every_kind()
            system.ended(long)
        sign.touch()
        system.ended()
        assert system.job(long).attempts[0].log_tail == f"{way}\n".encode()
    system.in_sync()
    assert not system.logs_with("left out")
