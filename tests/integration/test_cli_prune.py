"""`atemporal prune`: by hand, what retention does by itself; first counted, then deleted."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from sqlalchemy import text

from atemporal.cli import prune
from atemporal.store import dead_letters, expired
from atemporal.store.database import Database
from tests.integration.command_line import Cli
from tests.integration.test_retention import finished, left, newest
from tests.letters import refused

TABLES = "jobs, attempts, events, launch_groups, dead_letters, log_chunks, schedule_messages"


@pytest.fixture(autouse=True)
def _empty(database: Database) -> Iterator[None]:
    yield
    with database.begin() as tx:
        tx.execute(text(f"TRUNCATE {TABLES}"))


@pytest.fixture
def operator(database_url: str) -> Cli:
    return Cli(database_url, "http://127.0.0.1:1")


def rows(database: Database) -> dict[str, int]:
    with database.begin() as tx:
        return {
            name: tx.scalar(text(f"SELECT count(*) FROM {name}")) or 0
            for name in TABLES.split(", ")
        }


def filled(database: Database) -> None:
    """Five old jobs, of which one still has its instance; a group, letters, chunks of two ages."""
    with database.begin() as tx:
        old = [finished(tx, 40) for _ in range(4)]
        finished(tx, 40, closed=False)
        young = finished(tx, 2)
        newest(tx)
        for at, job in enumerate((*old[:2], young)):
            tx.execute(
                text(
                    "INSERT INTO launch_groups (id, launch, size, settled_at) "
                    "SELECT :group, launch, 2, now() - interval '40 days' "
                    "FROM attempts WHERE job_id = :id"
                ),
                {"group": f"00000000-0000-0000-0000-00000000000{at}", "id": job},
            )
            tx.execute(
                text("UPDATE attempts SET group_id = :group WHERE job_id = :id"),
                {"group": f"00000000-0000-0000-0000-00000000000{at}", "id": job},
            )
            tx.execute(
                text(
                    "INSERT INTO log_chunks (job_id, attempt, start, data, at) "
                    "SELECT :id, 1, n, 'x', now() - interval '3 days' FROM generate_series(0, 2) AS n"
                ),
                {"id": job},
            )
        dead_letters.keep(tx, [refused(b"1"), refused(b"2")])
        tx.execute(text("UPDATE dead_letters SET received_at = now() - interval '40 days'"))
        tx.execute(
            text(
                "INSERT INTO schedule_messages (key, name, digest, at) "
                "VALUES ('a', 's', 'd', now() - interval '40 days'), ('b', 's', 'd', now())"
            )
        )


GOES = {
    "jobs": 4,
    "launch_groups": 2,
    "fires": 0,
    "dead_letters": 2,
    "webhook_deliveries": 0,
    "schedule_messages": 1,
}


def test_a_dry_run_counts_just_what_goes_then_and_changes_nothing(
    operator: Cli, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(database)
    monkeypatch.setattr(expired, "PAGE", 2)
    monkeypatch.setattr(prune, "BATCH", 3)
    before = rows(database)
    dry = operator.json("prune", "--older-than", "30d", "--dry-run")
    assert rows(database) == before
    assert dry == {
        "dry_run": True,
        "older_than_s": 30 * 86_400,
        "logs_older_than_s": None,
        "deleted": GOES,
        "stays": {**dict.fromkeys(GOES, 0), "jobs": 1, "launch_groups": 1},
    }
    assert operator.json("prune", "--older-than", "30d", "--yes") == {**dry, "dry_run": False}
    after = rows(database)
    assert after == {
        "jobs": 3,
        "attempts": 2,
        "events": after["events"],
        "launch_groups": 1,
        "dead_letters": 0,
        "log_chunks": 3,
        "schedule_messages": 1,
    }
    again = operator.json("prune", "--older-than", "30d", "--yes")
    assert set(again["deleted"].values()) == {0}


def test_log_chunks_go_by_their_own_age_and_alone(operator: Cli, database: Database) -> None:
    filled(database)
    before = rows(database)
    assert operator.json("prune", "--logs-older-than", "4d", "--yes")["deleted"] == {
        "log_chunks": 0
    }
    assert operator.json("prune", "--logs-older-than", "2d", "--yes")["deleted"] == {
        "log_chunks": 9
    }
    assert rows(database) == {**before, "log_chunks": 0}


def test_counting_waits_for_no_lock_and_deleting_leaves_what_is_locked(
    operator: Cli, database: Database
) -> None:
    with database.begin() as tx:
        held, _, last = finished(tx, 400), finished(tx, 300), newest(tx)
    with database.begin() as other:
        other.execute(text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE"), {"id": held})
        assert operator.json("prune", "--older-than", "30d", "--dry-run")["deleted"]["jobs"] == 2
        done = operator("prune", "--older-than", "30d", "--yes")
        assert "has it locked" in done.stderr
    with database.begin() as tx:
        assert left(tx) == {held, last}


def test_nobody_to_ask_is_no_yes(operator: Cli, database: Database) -> None:
    with database.begin() as tx:
        old, last = finished(tx, 400), newest(tx)
    assert "add --yes" in operator("prune", "--older-than", "30d", code=2).stderr
    assert "say how old" in operator("prune", "--yes", code=2).stderr
    assert "not within 1h" in operator("prune", "--older-than", "1m", "--yes", code=2).stderr
    with database.begin() as tx:
        assert left(tx) == {old, last}


@pytest.mark.parametrize(("answer", "goes"), [("y", True), ("n", False)])
def test_on_a_terminal_it_says_how_many_and_asks(
    operator: Cli, database: Database, monkeypatch: pytest.MonkeyPatch, answer: str, goes: bool
) -> None:
    with database.begin() as tx:
        old, last = finished(tx, 400), newest(tx)

    def confirm(question: str, **_: object) -> None:
        assert "for good" in question
        if answer == "n":
            raise click.Abort

    monkeypatch.setattr(prune, "a_person_is_here", lambda: True)
    monkeypatch.setattr(click, "confirm", confirm)
    done = operator("prune", "--older-than", "30d", code=0 if goes else 1)
    assert "1 finished jobs" in done.stderr
    with database.begin() as tx:
        assert left(tx) == ({last} if goes else {old, last})
