"""Pictures of the page for its readers: `python -m tests.screenshots` writes them to `docs/page/`.

They are made in the browser that the tests use, of a small world that is made for them.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from sqlalchemy import text

from atemporal.model import AttemptRef
from atemporal.store import attempts, concurrency_limits, dead_letters, launches
from tests.api import Api, serving
from tests.browser import Browser, browsing
from tests.launches import LAUNCH
from tests.letters import refused
from tests.page import aged, token, wrote
from tests.servers.postgres import open_postgres

FOLDER = Path(__file__).parents[1] / "docs" / "page"
LARGEST = 150_000
_DESK, _PHONE = (1160, 760), (360, 740)
_RAN = {"created_at": 640, "launched_at": 633, "booted_at": 596, "ready_at": 561}
_FAILED = {**_RAN, "running_at": 540, "started_at": 540, "exited_at": 402, "closed_at": 371}
_RUNS = {"created_at": 352, "launched_at": 347, "booted_at": 309, "ready_at": 278}
_LOG = b"""loading 14 regions of 2026-11
eu-west-1: 48211 rows
eu-central-1: 40730 rows
sa-east-1: 12096 rows, 3 of them late
"""
_TEAMS = ("data", "web", "billing", "search")


def main() -> int:
    """Make all pictures."""
    server = open_postgres()
    try:
        with (
            serving(server.create_database()) as api,
            tempfile.TemporaryDirectory() as folder,
            browsing(Path(folder)) as browser,
        ):
            job = _world(api)
            page = f"{str(api.http.base_url).rstrip('/')}/ui"
            browser.open(f"{page}/sign-in")
            browser.find("#token").send_keys(token(api, "ada", "admin"))
            browser.find(".sign-in button").click()
            browser.until("document.querySelector('h1').textContent === 'Jobs'")
            for name, path, size, scheme in (
                ("jobs", "/jobs", _DESK, "light"),
                ("job", f"/jobs/{job}", _DESK, "light"),
                ("job-dark", f"/jobs/{job}", _DESK, "dark"),
                ("phone", f"/jobs/{job}", _PHONE, "light"),
                ("schedule", "/schedules/nightly", _DESK, "light"),
                ("health", "/health", _DESK, "dark"),
            ):
                _take(browser, page + path, name, size, scheme)
    finally:
        server.close()
    return 0


def _take(browser: Browser, url: str, name: str, size: tuple[int, int], scheme: str) -> None:
    browser.size(*size)
    browser.prefer(scheme)
    browser.open(url)
    picture = browser.picture()
    assert len(picture) < LARGEST, f"{name} has {len(picture)} bytes"
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.png").write_bytes(picture)
    print(f"docs/page/{name}.png: {len(picture):,} bytes")


def _world(api: Api) -> str:
    """Make what is shown; return the id of the job that is looked at."""
    schedule = {
        "name": "nightly",
        "cron": "30 2 * * *",
        "zone": "Europe/Berlin",
        "job": {"image": "registry.example.com/reports/nightly:1.4.2"},
    }
    assert api.http.post("/schedules", json=schedule).is_success
    for number in range(14):
        team = _TEAMS[number % len(_TEAMS)]
        ref = api.running(
            claim=f"c-{number}",
            image=f"registry.example.com/{team}/batch:{number % 3 + 1}.2",
            labels={"team": team},
        )
        if number % 4 != 3:
            assert api.exit(ref, exit_code=0 if number % 5 else 2).is_success
    for number in range(3):
        api.submitted(image="nginx:1.9", delay_s=1800 * (number + 1), labels={"team": "web"})
    with api.database.begin() as tx:
        concurrency_limits.put(tx, "team=*", 5, actor="api:ada", instance_type="c5.large")
        dead_letters.keep(tx, [refused()])
        tx.execute(
            text("INSERT INTO sweep_leases VALUES ('reap', 'reaper-7c1', now() + interval '1 h')")
        )
        tx.execute(text("UPDATE events SET relayed = true"))
    return _looked_at(api)


def _looked_at(api: Api) -> str:
    """A job whose first attempt failed, and whose second one runs."""
    first = api.running(
        image="registry.example.com/reports/monthly:2.0",
        command=["python", "-m", "monthly", "--regions", "all"],
        env={"MONTH": "2026-11", "OUTPUT": "s3://reports/monthly"},
        labels={"team": "data", "kind": "monthly"},
        max_attempts=2,
        backoff_s=0,
    )
    assert api.exit(first, exit_code=1).is_success
    api.emit(first.job_id)
    second = AttemptRef(first.job_id, 2)
    with api.database.begin() as tx:
        attempts.close(tx, first, actor="test")
        assert launches.begin(tx, second, LAUNCH, actor="test")
    assert api.claim(second, claim="c-2nd").is_success
    aged(api, first, _FAILED)
    aged(api, second, {**_RUNS, "running_at": 251, "started_at": 251})
    wrote(api, second, _LOG, start=0)
    return str(first.job_id)


if __name__ == "__main__":
    sys.exit(main())
