"""The migrations build exactly the tables the code is written against."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, Connection, create_engine, insert, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError

from atemporal import migrations
from atemporal.errors import Unavailable
from atemporal.migrations import TURN
from atemporal.store.database import Database
from atemporal.store.installation import identity
from atemporal.tables import REVISION, installation, metadata
from tests.api import until
from tests.servers.postgres import Postgres


def test_two_processes_upgrade_at_once_and_the_result_is_the_tables(
    postgres_server: Postgres,
) -> None:
    url = postgres_server.create_database()
    upgrade = [sys.executable, "-c", f"from atemporal import migrations as m; m.upgrade({url!r})"]
    both = [subprocess.Popen(upgrade) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg2"))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        built = set(connection.scalars(text(_CHECKS)))
    engine.dispose()
    declared = {
        str(constraint.name)
        for table in metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
    }
    assert built == declared
    assert _unvalidated(url) == []


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg2"))
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def _unvalidated(url: str) -> list[str]:
    with connected(url) as connection:
        query = "SELECT conname FROM pg_constraint WHERE NOT convalidated ORDER BY conname"
        return list(connection.scalars(text(query)))


def _version(connection: Connection) -> str:
    connection.rollback()
    return str(connection.scalar(text("SELECT version_num FROM alembic_version")))


def test_a_step_that_waits_holds_no_lock_of_the_step_before(postgres_server: Postgres) -> None:
    url = postgres_server.create_database()
    migrations.upgrade(url, "0002")
    with connected(url) as reader, connected(url) as observer:
        reader.execute(text("SELECT count(*) FROM jobs"))
        upgrade = threading.Thread(target=migrations.upgrade, args=(url,))
        upgrade.start()
        deadline = time.monotonic() + 30
        while not observer.scalar(text("SELECT bool_or(NOT granted) FROM pg_locks")):
            assert time.monotonic() < deadline, "the step that needs jobs alone never waited"
            observer.rollback()
            time.sleep(0.02)
        # 0003 has made its index, under a lock on attempts that is free again.
        assert _version(observer) == "0003"
        observer.execute(text("LOCK TABLE attempts IN ROW EXCLUSIVE MODE NOWAIT"))
        observer.rollback()
        reader.rollback()
        upgrade.join(30)
        assert _version(observer) == REVISION
    assert _unvalidated(url) == []


def _fresh(observer: Connection, query: str) -> Any:
    observer.rollback()
    return observer.scalar(text(query))


def waiting(observer: Connection) -> bool:
    """Whether somebody waits for a table."""
    query = "SELECT bool_or(NOT granted) FROM pg_locks WHERE relation IS NOT NULL"
    return bool(_fresh(observer, query))


def test_a_deadlock_with_a_daemon_is_no_end_of_it(postgres_server: Postgres) -> None:
    url = postgres_server.create_database()
    # The next step changes jobs, then attempts.
    migrations.upgrade(url, "0027")
    with connected(url) as daemon, connected(url) as observer:
        # Whoever looks first sees it, and is ended: that is to be the upgrade.
        daemon.execute(text("SET deadlock_timeout = '60s'"))
        daemon.execute(text("LOCK TABLE attempts IN ROW EXCLUSIVE MODE"))
        applied: list[str] = []
        upgrade = threading.Thread(target=lambda: applied.extend(migrations.upgrade(url)))
        upgrade.start()
        until(lambda: waiting(observer))
        daemon.execute(text("LOCK TABLE jobs IN ROW EXCLUSIVE MODE"))
        daemon.rollback()
        upgrade.join(30)
        assert _version(observer) == REVISION
    assert [one.partition(" ")[0] for one in applied] == [
        f"{number:04}" for number in range(28, int(REVISION) + 1)
    ]


def test_while_it_waits_for_a_table_others_pass(postgres_server: Postgres) -> None:
    url = postgres_server.create_database()
    migrations.upgrade(url, "0027")
    with connected(url) as dump, connected(url) as daemon, connected(url) as observer:
        dump.execute(text("LOCK TABLE attempts IN ACCESS SHARE MODE"))
        upgrade = threading.Thread(target=migrations.upgrade, args=(url,), kwargs={"lock_s": 0.3})
        upgrade.start()
        until(lambda: waiting(observer))
        # It has locked jobs, and waits for attempts: a daemon that wants both has them soon.
        for table in ("jobs", "attempts"):
            daemon.execute(text(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE"))
        daemon.rollback()
        assert _version(observer) == "0027"
        dump.rollback()
        upgrade.join(30)
        assert _version(observer) == REVISION


def test_the_turn_of_another_is_no_wait_for_a_table(postgres_server: Postgres) -> None:
    url = postgres_server.create_database()
    migrations.upgrade(url, "0027")
    with connected(url) as other, connected(url) as dump, connected(url) as observer:
        other.execute(text(f"SELECT pg_advisory_lock({TURN})"))
        dump.execute(text("LOCK TABLE jobs IN ACCESS SHARE MODE"))
        now = [0.0]
        how = {"lock_s": 0.1, "clock": lambda: now[0]}
        upgrade = threading.Thread(target=migrations.upgrade, args=(url,), kwargs=how)
        upgrade.start()
        asked = "SELECT bool_or(NOT granted) FROM pg_locks WHERE locktype = 'advisory'"
        until(lambda: bool(_fresh(observer, asked)))
        now[0] = 3600
        other.rollback()
        other.execute(text(f"SELECT pg_advisory_unlock({TURN})"))
        until(lambda: waiting(observer))
        dump.rollback()
        upgrade.join(30)
        assert _version(observer) == REVISION


def test_a_table_that_is_held_for_ever_is_told_and_what_was_applied_stays(
    postgres_server: Postgres,
) -> None:
    url = postgres_server.create_database()
    migrations.upgrade(url, "0002")
    with connected(url) as dump, connected(url) as observer:
        dump.execute(text("LOCK TABLE jobs IN ACCESS SHARE MODE"))
        with pytest.raises(Unavailable, match="pg_stat_activity"):
            migrations.upgrade(url, lock_s=0.05, patience_s=0.2)
        assert _version(observer) > "0002"
        dump.rollback()
        migrations.upgrade(url)
        assert _version(observer) == REVISION


def test_an_upgrade_that_was_interrupted_goes_on(postgres_server: Postgres) -> None:
    url = postgres_server.create_database()
    migrations.upgrade(url)
    with connected(url) as connection:
        # As it is when the process died after the last step's commit.
        connection.execute(
            text(
                "ALTER TABLE attempts DROP CONSTRAINT ck_attempts_number, "
                "ADD CONSTRAINT ck_attempts_number CHECK (number > 0) NOT VALID"
            )
        )
        connection.commit()
    migrations.upgrade(url)
    assert _unvalidated(url) == []


def test_the_release_names_its_last_step() -> None:
    steps = ScriptDirectory.from_config(migrations.config("postgresql://"))
    assert steps.get_heads() == [REVISION]
    # They are compared as text.
    assert all(len(step.revision) == 4 for step in steps.walk_revisions())


@pytest.mark.parametrize(
    ("found", "fits"), [(None, False), ("0001", False), (REVISION, True), ("9999", True)]
)
def test_an_older_database_is_told_and_a_newer_one_is_fine(
    postgres_server: Postgres, found: str | None, fits: bool
) -> None:
    url = postgres_server.create_database()
    if found:
        migrations.upgrade(url)
        with connected(url) as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": found})
            connection.commit()
    database = Database(url)
    try:
        if fits:
            database.check_schema()
        else:
            with pytest.raises(Unavailable, match="atemporal db upgrade"):
                database.check_schema()
    finally:
        database.dispose()


def _identity(url: str) -> UUID:
    database = Database(url)
    try:
        with database.begin() as tx:
            return identity(tx)
    finally:
        database.dispose()


def test_each_database_is_one_installation_for_ever(postgres_server: Postgres) -> None:
    url, other = postgres_server.create_database(), postgres_server.create_database()
    migrations.upgrade(url, "0004")
    with pytest.raises(Unavailable, match="db upgrade"):
        _identity(url)
    migrations.upgrade(url)
    first = _identity(url)
    migrations.upgrade(url)
    migrations.upgrade(other)
    assert _identity(url) == first != _identity(other)
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg2"))
    for second in ({}, {"single": False}):
        with pytest.raises(IntegrityError), engine.begin() as connection:
            connection.execute(insert(installation).values(**second))
    with engine.begin() as connection:
        connection.execute(installation.delete())
    engine.dispose()
    with pytest.raises(Unavailable, match="atemporal:installation"):
        _identity(url)


def test_tables_that_are_made_without_the_migrations_have_the_row_too(
    postgres_server: Postgres,
) -> None:
    url = postgres_server.create_database()
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg2"))
    metadata.create_all(engine)
    engine.dispose()
    assert _identity(url).version == 4


_CHECKS = """
    SELECT conname FROM pg_constraint JOIN pg_namespace n ON n.oid = connamespace
    WHERE contype = 'c' AND nspname = 'public'
"""

# One attempt's sentence of an earlier release -> what blocks it, EC2's code.
_SENTENCES = {
    "capacity: no room in either of them": ("capacity", None),
    "no instance yet": (None, None),
    "Server.SpotInstanceTermination": (None, "Server.SpotInstanceTermination"),
    "i-0123456789abcdef0 is terminated: Client.InstanceInitiatedShutdown": (
        None,
        "Client.InstanceInitiatedShutdown",
    ),
    "EC2 does not list it any more": (None, None),
}


def test_facts_in_the_sentences_of_earlier_releases_get_their_columns(
    postgres_server: Postgres,
) -> None:
    url = postgres_server.create_database()
    migrations.upgrade(url, "0006")
    with connected(url) as connection:
        for number, (sentence, (blocked_on, _)) in enumerate(_SENTENCES.items(), 1):
            lost = blocked_on is None and sentence != "no instance yet"
            connection.execute(
                text(_OLD_ATTEMPT), {"n": number, "sentence": sentence, "lost": lost}
            )
        connection.commit()
    migrations.upgrade(url)
    with connected(url) as connection:
        rows = connection.execute(text("SELECT detail, blocked_on, end_code FROM attempts"))
        assert {row.detail: (row.blocked_on, row.end_code) for row in rows} == _SENTENCES


_OLD_ATTEMPT = """
    WITH job AS (
        INSERT INTO jobs (id, spec, state, attempt, attempt_limit, run_at, due_at)
        VALUES (gen_random_uuid(), '{}', 'warming', :n, 9, now(), now()) RETURNING id)
    INSERT INTO attempts (job_id, number, state, reason, launch, instance_id, exited_at, detail)
    SELECT id, :n, CASE WHEN :lost THEN 'exited' ELSE 'launching' END,
           CASE WHEN :lost THEN 'instance_lost' END, '{}', CASE WHEN :lost THEN 'i-' || :n END,
           CASE WHEN :lost THEN now() END, :sentence FROM job
"""
