"""`atemporal audit`: its verdict over a real Postgres and a twin of EC2."""

from __future__ import annotations

import json
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


def test_nothing_balances_with_nothing(audit: Cli) -> None:
    assert "it balances" in audit()


def test_lives_from_launch_to_closed_balance(world: World, audit: Cli) -> None:
    world.launch()
    ref, mine = world.launch()
    world.cancel(ref)
    sweep = world.sweep()
    sweep.tick()
    world.wait_gone(mine)
    sweep.tick()
    found = audit.json()
    assert found["balances"] is True
    assert found["counts"]["matched"] == 2
    assert {row["instance"] for row in found["rows"]} == set(world.states())
    seconds = found["instance_seconds"]
    assert abs(seconds["ec2"] - seconds["books"]) < 5
    assert found["violations"] == []
    assert "matched" in audit("--all")
    assert mine not in audit(), "what balances is not listed unless asked for"


def test_every_kind_of_fault_is_named_and_the_exit_code_says_so(world: World, audit: Cli) -> None:
    ref, _ = world.launch()
    second = world.foreign(tags_of(ref))
    unknown = world.foreign(tags_of(AttemptRef(uuid4(), 1)))
    world.write_down(world.begin(), NOBODY)
    late, outlived = world.launch()
    world.cancel(late)
    with world.database.begin() as tx:
        tx.execute(
            text("UPDATE attempts SET exited_at = now() - interval '1 h' WHERE job_id = :id"),
            {"id": late.job_id},
        )
    found = audit.json(code=1, ATEMPORAL_CLOUD_GRACE_S="0")
    assert found["balances"] is False
    standings = {row["instance"]: row["standing"] for row in found["rows"] if row["fault"]}
    assert standings == {
        second: "doubled",
        unknown: "unaccounted",
        NOBODY: "missing",
        outlived: "overstayed",
    }
    assert found["worst_overstay_s"] > 3500
    told = audit(code=1, ATEMPORAL_CLOUD_GRACE_S="0")
    assert "it does NOT balance" in told
    assert all(one in told for one in standings)


def test_an_instance_of_another_installation_is_named_with_what_to_do(
    world: World, audit: Cli
) -> None:
    theirs = world.foreign(tags_of(AttemptRef(uuid4(), 1), installation=uuid4()))
    found = audit.json(code=1)
    assert found["counts"]["foreign"] == 1
    assert found["balances"] is False
    told = audit(code=1)
    assert theirs in told
    assert "give one of them another ATEMPORAL_DEPLOYMENT" in told


def test_a_young_instance_is_shown_and_is_no_fault(world: World, audit: Cli) -> None:
    unknown = world.foreign(tags_of(AttemptRef(uuid4(), 1)))
    assert audit.json()["counts"]["young"] == 1
    assert unknown in audit()


def test_a_broken_promise_of_the_tables_is_a_fault_though_every_instance_balances(
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
    assert "broken: not_before_its_time" in audit(code=1)


def test_what_was_closed_long_ago_balances_by_the_books_alone(world: World, audit: Cli) -> None:
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
    alone = found["books_alone"]
    assert (alone["attempts"], alone["instance_seconds"]) == (1, 3600)


def test_while_ec2_does_not_answer_there_is_no_verdict(audit: Cli) -> None:
    assert "balance" not in audit(code=3, ATEMPORAL_EC2_ENDPOINT_URL="http://127.0.0.1:9")
