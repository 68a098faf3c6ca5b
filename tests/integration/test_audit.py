"""`atemporal audit`: its verdict over a real Postgres and a twin of EC2."""

from __future__ import annotations

import json
import time
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from atemporal.cli import main
from atemporal.model import AttemptRef
from tests.integration.reaping import DEPLOYMENT, NOBODY, World, tags_of


class Cli:
    """Calls `atemporal audit` as an operator of this deployment."""

    def __init__(self, world: World, database_url: str) -> None:
        self._env = {
            "ATEMPORAL_DATABASE_URL": database_url,
            "ATEMPORAL_DEPLOYMENT": DEPLOYMENT,
            "ATEMPORAL_EC2_ENDPOINT_URL": world.settings.ec2_endpoint_url,
        }

    def __call__(self, *words: str, code: int = 0, **env: str) -> str:
        runner = CliRunner(env={**self._env, **env})
        done = runner.invoke(main, ["audit", *words], catch_exceptions=False)
        assert done.exit_code == code, done.output
        return done.output

    def json(self, code: int = 0, **env: str) -> Any:
        return json.loads(self("-o", "json", code=code, **env))


@pytest.fixture
def audit(world: World, database_url: str) -> Cli:
    return Cli(world, database_url)


def test_nothing_and_nothing_are_in_sync(audit: Cli) -> None:
    assert audit().splitlines()[-1] == "in sync"


def test_lives_from_launch_to_closed_are_in_sync(world: World, audit: Cli) -> None:
    world.launch()
    ref, mine = world.launch()
    world.cancel(ref)
    sweep = world.sweep()
    sweep.tick()
    world.wait_gone(mine)
    sweep.tick()
    found = audit.json()
    assert found["in_sync"] is True
    assert found["counts"]["matched"] == 2
    assert {row["instance"] for row in found["rows"]} == set(world.states())
    seconds = found["instance_seconds"]
    assert abs(seconds["ec2"] - seconds["recorded"]) < 5
    assert found["violations"] == []
    assert "matched" in audit("--all")
    assert mine not in audit(), "what is in sync is not listed unless asked for"


def test_every_kind_of_drift_is_named_and_the_exit_code_tells(world: World, audit: Cli) -> None:
    ref, _ = world.launch()
    second = world.foreign(tags_of(ref))
    unknown = world.foreign(tags_of(AttemptRef(uuid4(), 1)))
    world.write_down(world.begin(), NOBODY)
    late, outlived = world.launch()
    world.cancel(late)
    world.change(outlived, launched_at=time.time() - 7200)
    with world.database.begin() as tx:
        tx.execute(
            text("UPDATE attempts SET exited_at = now() - interval '1 h' WHERE job_id = :id"),
            {"id": late.job_id},
        )
    found = audit.json(code=1, ATEMPORAL_CLOUD_GRACE_S="0")
    assert found["in_sync"] is False
    drift = {row["instance"]: row["status"] for row in found["rows"] if row["drift"]}
    assert drift == {
        second: "duplicate",
        unknown: "orphaned",
        NOBODY: "missing",
        outlived: "leaked",
    }
    assert found["worst_leak_s"] > 3500
    shown = audit(code=1, ATEMPORAL_CLOUD_GRACE_S="0")
    assert shown.splitlines()[-1] == "drift: 1 orphaned, 1 duplicate, 1 missing, 1 leaked"
    assert all(one in shown for one in drift)


def test_an_instance_of_another_installation_is_named_with_what_to_do(
    world: World, audit: Cli
) -> None:
    theirs = world.foreign(tags_of(AttemptRef(uuid4(), 1), installation=uuid4()))
    found = audit.json(code=1)
    assert found["counts"]["foreign"] == 1
    assert found["in_sync"] is False
    shown = audit(code=1)
    assert theirs in shown
    assert "give one of them another ATEMPORAL_DEPLOYMENT" in shown


def test_a_young_instance_is_shown_and_is_no_drift(world: World, audit: Cli) -> None:
    unknown = world.foreign(tags_of(AttemptRef(uuid4(), 1)))
    assert audit.json()["counts"]["young"] == 1
    assert unknown in audit()


def test_a_broken_promise_of_the_tables_is_drift_though_every_instance_is_in_sync(
    world: World, audit: Cli
) -> None:
    ref, _ = world.launch()
    with world.database.begin() as tx:
        tx.execute(text("UPDATE jobs SET run_at = now() + interval '1 h'"))
        tx.execute(text("UPDATE attempts SET running_at = now()"))
    found = audit.json(code=1)
    assert found["counts"]["matched"] == 1
    (broken,) = found["violations"]
    assert (broken["promise"], broken["job"]) == ("not_before_its_time", str(ref.job_id))
    shown = audit(code=1)
    assert "broken: not_before_its_time" in shown
    assert shown.splitlines()[-1] == "drift: 1 broken promise"


def test_what_was_closed_long_ago_is_in_sync_by_the_records_alone(
    world: World, audit: Cli
) -> None:
    ref = world.begin()
    world.write_down(ref, NOBODY)
    world.cancel(ref)
    with world.database.begin() as tx:
        tx.execute(
            text(
                "UPDATE attempts SET state = 'closed', launched_at = now() - interval '3 h', "
                "exited_at = now() - interval '2 h', closed_at = now() - interval '2 h'"
            )
        )
        tx.execute(
            text(
                "INSERT INTO events (job_id, attempt, type, actor) "
                "VALUES (:id, 1, 'attempt.closed', 'test')"
            ),
            {"id": ref.job_id},
        )
    found = audit.json()
    assert found["rows"] == []
    settled = found["settled"]
    assert (settled["attempts"], settled["instance_seconds"]) == (1, 3600)


def test_while_ec2_does_not_answer_there_is_no_verdict(audit: Cli) -> None:
    shown = audit(code=3, ATEMPORAL_EC2_ENDPOINT_URL="http://127.0.0.1:9")
    assert "in sync" not in shown
    assert "drift" not in shown
