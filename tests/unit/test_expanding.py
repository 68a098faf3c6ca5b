"""Migrations only add: whatever a step since the kept release does, that release works on after it."""

from __future__ import annotations

import tarfile
from importlib import import_module
from pathlib import Path

import pytest

from tests.upgrade.before import ARCHIVE, ROOT, STEPS
from tests.upgrade.contracted import WHY
from tests.upgrade.expanding import Mistake, Statement, mistakes

MOST_BYTES = 500_000


def kept() -> dict[str, bytes]:
    """The steps of the kept release, by the names of their files."""
    with tarfile.open(ARCHIVE) as archive:
        files = [member for member in archive if member.name.startswith(f"{STEPS}/0")]
        return {Path(one.name).name: archive.extractfile(one).read() for one in files}  # type: ignore[union-attr]


KEPT = kept()
LAST = max(KEPT)[:4]


class Recorder:
    """Takes the place of alembic's `op`."""

    def __init__(self) -> None:
        self.statements: list[str] = []

    def execute(self, statement: str) -> None:
        self.statements.append(str(statement))


def all_statements(monkeypatch: pytest.MonkeyPatch) -> list[Statement]:
    found: list[Statement] = []
    for path in sorted((ROOT / STEPS).glob("[0-9]*.py")):
        step = import_module(f"atemporal.migrations.versions.{path.stem}")
        recorder = Recorder()
        monkeypatch.setattr(step, "op", recorder)
        step.upgrade()
        found += [(path.name[:4], statement) for statement in recorder.statements]
    return found


def test_a_step_that_was_released_is_as_it_was() -> None:
    for name, content in KEPT.items():
        assert (ROOT / STEPS / name).read_bytes() == content, name


def test_steps_since_then_only_add(monkeypatch: pytest.MonkeyPatch) -> None:
    found = set(mistakes(all_statements(monkeypatch), LAST))
    assert found == set(WHY), "take it out, or list it with why it is none"


def test_the_archive_is_small_and_names_its_commit() -> None:
    assert ARCHIVE.stat().st_size < MOST_BYTES
    with tarfile.open(ARCHIVE) as archive:
        assert len(archive.pax_headers["comment"]) == 40


BEFORE: list[Statement] = [
    (
        "0001",
        "CREATE TABLE jobs (id int, state text, CONSTRAINT ck_s CHECK (state IN ('a', 'b')))",
    ),
]
SWAP = "ALTER TABLE jobs DROP CONSTRAINT ck_s, ADD CONSTRAINT ck_s CHECK"


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE jobs",
        "ALTER TABLE jobs DROP COLUMN state",
        "ALTER TABLE jobs DROP state",
        "ALTER TABLE jobs ADD COLUMN x int, DROP COLUMN state",
        "ALTER TABLE jobs RENAME COLUMN state TO status",
        "ALTER TABLE jobs RENAME TO tasks",
        "ALTER TABLE jobs ADD COLUMN owner text NOT NULL",
        "ALTER TABLE jobs ADD owner text NOT NULL",
        "ALTER TABLE jobs ALTER COLUMN state SET NOT NULL",
        "ALTER TABLE jobs ALTER COLUMN state DROP DEFAULT",
        "ALTER TABLE jobs ALTER COLUMN id TYPE bigint",
        f"{SWAP} (state IN ('a')) NOT VALID",
        f"{SWAP} (state IN ('a', 'c')) NOT VALID",
        f"{SWAP} (id IN ('a', 'b')) NOT VALID",
        f"{SWAP} (id > 0) NOT VALID",
        "ALTER TABLE jobs ADD CONSTRAINT ck_id CHECK (id > 0)",
        "ALTER TABLE jobs ADD CONSTRAINT uq_id UNIQUE (id)",
        "ALTER TABLE jobs ADD UNIQUE (id)",
        "ALTER TABLE jobs ADD CONSTRAINT fk_x FOREIGN KEY (id) REFERENCES others (id)",
        "ALTER TABLE jobs DROP CONSTRAINT uq_jobs_key",
        "CREATE UNIQUE INDEX uq_jobs_state ON jobs (state)",
        "DROP INDEX uq_jobs_key",
        "CREATE TRIGGER t BEFORE INSERT ON jobs EXECUTE FUNCTION f()",
        "DELETE FROM jobs",
    ],
)
def test_what_the_release_before_would_notice_is_found(statement: str) -> None:
    (found,) = mistakes([*BEFORE, ("0002", statement)], "0001")
    assert found.step == "0002"
    assert found.what in statement


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE jobs ADD COLUMN x int, ADD COLUMN y text NOT NULL DEFAULT 'a, b'",
        "ALTER TABLE jobs ALTER COLUMN state SET DEFAULT 'a'",
        "ALTER TABLE jobs ALTER COLUMN state DROP NOT NULL",
        "ALTER TABLE jobs SET (fillfactor = 70)",
        f"{SWAP} (state IN ('a', 'b', 'c')) NOT VALID",
        "CREATE INDEX ix_jobs_state ON jobs (state)",
        "DROP INDEX ix_jobs_state",
        "ALTER INDEX ix_new RENAME TO ix_jobs_state",
    ],
)
def test_what_it_does_not_notice_is_taken(statement: str) -> None:
    assert not list(mistakes([*BEFORE, ("0002", statement)], "0001"))


def test_a_table_that_it_does_not_know_may_be_changed_at_will() -> None:
    steps = [
        ("0002", "CREATE TABLE others (id int)"),
        ("0003", "ALTER TABLE others ADD COLUMN x int NOT NULL, DROP COLUMN id"),
        ("0003", "CREATE UNIQUE INDEX uq_others_x ON others (x)"),
    ]
    assert not list(mistakes([*BEFORE, *steps], "0001"))
    assert list(mistakes([*BEFORE, *steps], "0002")) == [
        Mistake("0003", "ADD COLUMN x int NOT NULL"),
        Mistake("0003", "DROP COLUMN id"),
        Mistake("0003", "CREATE UNIQUE INDEX uq_others_x ON others (x)"),
    ]
