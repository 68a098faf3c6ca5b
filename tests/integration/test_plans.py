"""With a million jobs, nothing that a person or a daemon asks every minute goes through a whole table.

The product itself is what asks: all daemons' loops and the API run on the full tables, and the command
line is used. Each statement that this sends is explained; a new one is there by being sent.
"""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import psycopg2
import pytest
from click.testing import CliRunner

from atemporal import migrations, tables
from atemporal.cli import main
from atemporal.local.home import Home
from atemporal.local.stack import Stack
from atemporal.twin.containers.engine import PROCESS, Engine
from tests import crowd
from tests.api import until
from tests.plans import LARGE, Plans
from tests.servers.ports import free_port

FUTURE, FINISHED = 700_000, 300_000
# Reading all of `jobs` costs 50,000 and more, an index of it from end to end 15,000.
MOST = 10_000
RETENTION_DAYS = "89.9"
# Kept for what they forbid; nobody looks anything up by them.
RULES = {"uq_attempts_one_live_a_job"}

LISTINGS = [
    "",
    "state=scheduled",
    "state=queued",
    "state=running",
    "state=finished",
    "state=succeeded&state=failed",
    "state=lost&state=scheduled",
    "label=team%3Dreports",
    "label=part%3D7",
    "label=part%3D7&state=failed",
    "label=nobody%3Dhas-it",
]


class Operator:
    """Whoever uses the command line and the API of an installation."""

    def __init__(self, stack: Stack) -> None:
        self.http = httpx.Client(base_url=stack.api_url, trust_env=False, timeout=60)
        self._env = stack.environment()[0] | stack.environment()[1]

    def __call__(self, *words: str, codes: tuple[int, ...] = (0,), stdin: str = "") -> str:
        done = CliRunner(env=self._env).invoke(main, words, input=stdin, catch_exceptions=False)
        assert done.exit_code in codes, f"{words}: {done.output}"
        return done.stdout

    def get(self, path: str) -> Any:
        answer = self.http.get(path)
        assert answer.status_code == 200, f"{path}: {answer.text}"
        return answer.json() if "json" in answer.headers["content-type"] else answer.text


@pytest.fixture(scope="module")
def crowded(database_url: str) -> str:
    migrations.upgrade(database_url)
    crowd.fill(database_url, future=FUTURE, finished=FINISHED, thin=True)
    return database_url


@pytest.fixture(scope="module")
def plans(crowded: str, tmp_path_factory: pytest.TempPathFactory) -> Plans:
    """The plans of a few minutes in the life of everything."""
    watched = Plans(most=MOST)
    home = Home(tmp_path_factory.mktemp("home") / "local")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATEMPORAL_DATABASE_URL", crowded)
        patch.setenv("ATEMPORAL_RETENTION", RETENTION_DAYS)
        stack = Stack(home, port=free_port(), engine=Engine(PROCESS))
        with watched.watching(), closing(home):
            stack.start()
            try:
                live(Operator(stack), tmp_path_factory.mktemp("files"))
                all_tick(stack)
            finally:
                stack.stop(power_off=True)
    return watched


def live(operator: Operator, folder: Path) -> None:
    """What people ask and do."""
    runs = operator("submit", "busybox:1.36", "--key", "runs", "--", "true").strip()
    fails = operator("submit", "busybox:1.36", "--", "sh", "-c", "exit 3").strip()
    later = operator("submit", "busybox:1.36", "--in", "1h", "-l", "who=me", "--", "true").strip()
    given = {"image": "busybox:1.36", "command": ["true"], "delay_s": 7200, "key": "one"}
    for _ in range(2):
        assert operator.http.post("/jobs", json=given).status_code in (200, 201)
    file = folder / "jobs.ndjson"
    file.write_text("".join(json.dumps({**given, "key": f"line {n}"}) + "\n" for n in range(30)))
    operator("submit", "--from-file", str(file))
    for asked in LISTINGS:
        for order in ("newest", "oldest"):
            page = operator.get(f"/jobs?{asked}&limit=20&order={order}")
            if page["next"]:
                operator.get(f"/jobs?{asked}&limit=20&order={order}&after={page['next']}")
    operator("list")
    operator("list", "--state", "finished", "--limit", "250")
    operator("show", later[-8:])
    operator("reschedule", later, "--in", "2h")
    operator("cancel", later)
    operator("wait", runs, "--timeout", "2m")
    operator("wait", fails, codes=(3,))
    operator("retry", fails)
    operator("wait", fails, codes=(3,))
    for of_one in ("show", "logs", "user-data"):
        operator(of_one, runs[-9:])
    operator("instances")
    operator("audit", codes=(0, 1))
    # The reaper has its part in their lives too.
    until(
        lambda: operator.get(f"/jobs/{runs}")["instances"][-1]["state"] == "closed", within_s=120
    )
    for path in ("/healthz", "/readyz", "/metrics", f"/jobs/{runs}/events"):
        operator.get(path)


def all_tick(stack: Stack) -> None:
    """Wait until each loop has done its work at least once."""
    assert stack._daemon is not None
    runners = stack._daemon.runners
    until(lambda: all(runner.healthy for runner in runners), within_s=120)


def test_nothing_goes_through_a_whole_table(plans: Plans) -> None:
    assert not plans.faults
    # What was watched is not a part of it only.
    for table in LARGE:
        for verb in ("SELECT", "INSERT INTO", "UPDATE", "DELETE FROM"):
            if (table, verb) != ("events", "SELECT"):
                assert any(verb in one and table in one for one in plans.seen), (verb, table)


def indexes() -> list[str]:
    names = {str(index.name) for table in LARGE for index in tables.metadata.tables[table].indexes}
    return sorted(names - RULES)


@pytest.mark.parametrize("index", indexes())
def test_it_is_noticed_when_an_index_is_gone(plans: Plans, crowded: str, index: str) -> None:
    with closing(psycopg2.connect(crowded)) as connection, connection.cursor() as cursor:
        assert not plans.again(connection)
        cursor.execute(f"DROP INDEX {index}")
        assert plans.again(connection)
        connection.rollback()
