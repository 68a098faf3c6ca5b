"""Two launchers and two reapers against a twin with the buckets that EC2 publishes.

Each has a pool of connections of its own, as processes have, and asks as fast as it can.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from atemporal.cloud import Cloud
from atemporal.errors import Retry
from atemporal.model import AttemptRef, parse_spec
from atemporal.rate_limits import RateLimits
from atemporal.settings import Settings, load
from atemporal.states import AttemptState
from atemporal.store import attempts, jobs
from atemporal.store.database import Database
from atemporal.twin.host import Pace
from atemporal.twin.server import Twin
from services.launcher.launcher import Launcher
from services.launcher.sweep import SweepLoop as LaunchSweep
from services.reaper.reaper import Reaper
from services.reaper.sweep import SweepLoop as ReapSweep
from tests.claims import claim_due
from tests.integration.reaping import limits

SIGN_S = 1.0
MANY = 16
PAUSE_S = 0.02
WITHIN_S = 200.0

pytestmark = pytest.mark.timeout(3 * WITHIN_S)


@pytest.fixture
def twin(tmp_path: Path) -> Iterator[Twin]:
    twin = Twin(tmp_path / "twin", engine="process", pace=Pace(pending_s=3600), limits="aws")
    twin.start()
    yield twin
    twin.stop(power_off=True)


@pytest.fixture
def settings(twin: Twin, database_url: str) -> Settings:
    return load(
        database_url=database_url,
        ec2_endpoint_url=twin.url,
        callback_keys="k1:0123456789abcdef0123456789abcdef",
        image_id="ami-12345678",
        trusted_images=("ami-12345678",),
        stale_after_s=5,
    )


def queued(database: Database) -> None:
    with database.begin() as tx:
        for _ in range(MANY):
            jobs.submit_one(tx, parse_spec({"image": "busybox"}), actor="test")
        assert len(claim_due(tx, MANY, actor="test")) == MANY


def refused(twin: Twin) -> list[dict[str, Any]]:
    return [call for call in twin.calls if call["code"] == "RequestLimitExceeded"]


def asked(twin: Twin) -> Counter[str]:
    return Counter(call["action"] for call in twin.calls)


def open_attempts(database: Database) -> dict[AttemptRef, AttemptState]:
    with database.begin() as tx:
        return {one.ref: one.state for one in attempts.still_open(tx) if one.instance_id}


class Crowd:
    """Threads that tick without a pause, each over a pool of its own."""

    def __init__(self, settings: Settings) -> None:
        self.over = threading.Event()
        self.errors: list[Exception] = []
        self._settings = settings
        self._databases: list[Database] = []
        self._clouds: list[Cloud] = []
        self._threads: list[threading.Thread] = []

    def add(self, make: Callable[[Settings, Database, Cloud], Callable[[], float]]) -> None:
        database = Database(self._settings.database_url.get_secret_value())
        cloud = Cloud(self._settings, RateLimits(self._settings, database))
        self._databases.append(database)
        self._clouds.append(cloud)
        tick = make(self._settings, database, cloud)
        self._threads.append(threading.Thread(target=self._run, args=(tick,)))

    def _run(self, tick: Callable[[], float]) -> None:
        while not self.over.is_set():
            try:
                tick()
            except Retry:
                # As a daemon: it has no token now, and asks again; not to take the processor from all.
                self.over.wait(PAUSE_S)
            except Exception as error:  # noqa: BLE001 - the test looks at it
                self.errors.append(error)
                return

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join()
        for cloud in self._clouds:
            cloud.close()
        for database in self._databases:
            database.dispose()


def launcher(settings: Settings, database: Database, cloud: Cloud) -> Callable[[], float]:
    return LaunchSweep(Launcher(settings, database, cloud), interval_s=10).tick


def reaper(settings: Settings, database: Database, cloud: Cloud) -> Callable[[], float]:
    return ReapSweep(
        Reaper(database, cloud), database, limits=limits(grace_s=300), interval_s=1
    ).tick


def asker(settings: Settings, database: Database, cloud: Cloud) -> Callable[[], float]:
    def ask() -> float:
        cloud.describe(["i-0123456789abcdef0"])
        return 0.0

    return ask


def wait(crowd: Crowd, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert not crowd.errors
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_they_provoke_no_refusal_beyond_the_first_sign(
    twin: Twin, settings: Settings, database: Database
) -> None:
    queued(database)
    crowd = Crowd(settings)
    for make in (launcher, launcher, reaper, reaper, asker, asker):
        crowd.add(make)
    crowd.start()
    try:
        wait(crowd, lambda: len(open_attempts(database)) == MANY)
        with database.begin() as tx:
            for ref in open_attempts(database):
                jobs.cancel(tx, ref.job_id, actor="test")
        wait(crowd, lambda: not open_attempts(database))
        # More than the bucket holds: that none was refused shows that we held back.
        wait(crowd, lambda: asked(twin)["DescribeInstances"] > 110)
    finally:
        crowd.close()
        with database.begin() as tx:
            tx.execute(text("TRUNCATE jobs, attempts, events, rate_limits"))
    found = refused(twin)
    # A machine that stands still for a second can bring a call too late: that is the first sign.
    beyond = [one for one in found if one["at"] > found[0]["at"] + SIGN_S]
    assert beyond == []


def test_without_the_shared_limits_they_would_be_refused(
    twin: Twin, settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above can fail."""
    monkeypatch.setattr(RateLimits, "take", lambda *_, **__: 1)
    monkeypatch.setattr(RateLimits, "room", lambda *_, **__: MANY)
    queued(database)
    crowd = Crowd(settings)
    for _ in range(2):
        crowd.add(launcher)
    crowd.start()
    try:
        wait(crowd, lambda: len(refused(twin)) > 0)
    finally:
        crowd.close()
        with database.begin() as tx:
            tx.execute(text("TRUNCATE jobs, attempts, events, rate_limits"))
