"""`atemporal bundle`: a job's story in one file, on a real Postgres, API and twin, without a secret."""

from __future__ import annotations

import base64
import hashlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from atemporal import tokens
from atemporal.cloud import Cloud
from atemporal.model import AttemptRef, ExitRecord, JobSpec, Launch
from atemporal.model.log import LogChunk
from atemporal.settings import Settings
from atemporal.states import Reason
from atemporal.store import attempts, dead_letters, groups, launches, logs
from atemporal.store.database import Database
from atemporal.twin.server import Twin
from atemporal.userdata import render
from tests.claims import claim_due
from tests.integration.command_line import KEYS, Cli
from tests.launches import LAUNCH
from tests.letters import refused

pytestmark = pytest.mark.usefixtures("own_output")

ENV = "canary-of-the-env"
PASSWORD = "canary-of-the-broker"
API_TOKEN = "atp_canary-of-the-api"
AWS = "canary-of-aws"
SETTINGS = {
    "ATEMPORAL_BROKER_URL": f"amqp://me:{PASSWORD}@127.0.0.1:1//",
    "ATEMPORAL_API_TOKEN": API_TOKEN,
    "AWS_SECRET_ACCESS_KEY": AWS,
    "ATEMPORAL_EC2_ENDPOINT_URL": "http://127.0.0.1:1",
}


@pytest.fixture
def database(database_url: str, cli: Cli) -> Iterator[Database]:
    made = Database(database_url)
    yield made
    made.dispose()


def begun(database: Database, job_id: str, launch: Launch = LAUNCH) -> AttemptRef:
    with database.begin() as tx:
        refs = {ref.job_id: ref for ref in claim_due(tx, 1000, actor="test")}
        ref = refs[UUID(job_id)]
        assert launches.begin(tx, ref, launch, actor="test")
    return ref


def ended(database: Database, ref: AttemptRef, instance_id: str, log: bytes) -> None:
    record = ExitRecord(exit_code=3, log_tail=base64.b64encode(log))
    with database.begin() as tx:
        attempts.launched(tx, ref, instance_id, actor="test")
        attempts.claim(tx, ref, claim_id="canary-claim", instance_id=None, actor="test")
        logs.append(tx, ref, LogChunk(0, log), kept=1 << 20)
        attempts.end(tx, ref, Reason.EXIT_NONZERO, actor="test", exit_record=record)


def opened(path: Path) -> dict[str, str]:
    """The files of a bundle by their names in its one directory."""
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name).decode() for name in archive.namelist()}


def test_the_whole_story_with_what_ec2_shows_and_no_secret(
    cli: Cli, database: Database, tmp_path: Path
) -> None:
    job_id = cli.submit("-e", f"PASSWORD={ENV}", "--label", "team=a")
    ref = begun(database, job_id)
    token = tokens.mint(Settings(callback_keys=KEYS).keys, "k1", "default", ref.id)
    with database.begin() as tx:
        dead_letters.keep(
            tx, [refused(f'{{"e": "{ENV}"}}'.encode(), {"x": ENV}, message_id=f"{ref.id}.due")]
        )
    log = f"hello\nmy token is {token}, {ENV}!\n".encode()
    to = tmp_path / "story.zip"
    with Twin(tmp_path / "twin", engine="process") as twin:
        with Cloud(Settings(ec2_endpoint_url=twin.url)) as cloud:
            launch = LAUNCH.model_copy(update={"image_id": cloud.resolve_image()})
            instance = cloud.run(ref, launch, b"#!/bin/true\n")
        ended(database, ref, instance.id, log)
        env = {**SETTINGS, "ATEMPORAL_EC2_ENDPOINT_URL": twin.url}
        done = cli("bundle", job_id[-12:], "--to", str(to), "--with-output", code=0, **env)

    assert done.stdout == f"{to}\n"
    assert to.stat().st_mode & 0o777 == 0o600
    files = opened(to)
    for canary in (ENV, PASSWORD, API_TOKEN, AWS, token, KEYS[3:], "canary"):
        forms = (canary, base64.b64encode(canary.encode()).decode()[1:-4])
        for name, content in files.items():
            assert not any(form in content for form in forms), (canary, name)
    assert {*files} >= {
        *("README.txt", "manifest.json", "job.json", "events.json", "attempts.json", "ec2.json"),
        *("dead-letters.json", "limits.json", "settings.json", "versions.json", "postgres.json"),
        *("output-1-tail.txt", "output-1-from-0.txt", "api.json"),
    }
    job, attempt = json.loads(files["job.json"]), json.loads(files["attempts.json"])[0]
    assert (job["id"], job["env"], job["labels"]) == (job_id, {"PASSWORD": "***"}, {"team": "a"})
    assert files["output-1-tail.txt"] == "hello\nmy token is ***, ***!\n"
    call = attempt["RunInstances"]
    assert call["state"] == "answered: it has its instance"
    assert call["parameters"]["ClientToken"] == f"{ref.id}.0"
    spec = JobSpec(image="nginx", env={"PASSWORD": ENV}, labels={"team": "a"})
    data = render(ref, spec, LAUNCH, token)
    assert call["parameters"]["UserData"] == {
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    (shown,) = json.loads(files["ec2.json"])
    assert shown["id"] == instance.id
    (letter,) = json.loads(files["dead-letters.json"])
    assert letter["message_id"] == f"{ref.id}.due"
    assert json.loads(files["events.json"])[0]["type"] == "job.scheduled"
    assert abs(json.loads(files["postgres.json"])["ahead_of_here_ms"]) < 60_000
    manifest = json.loads(files["manifest.json"])
    assert manifest["with_output"] is True
    missing = {one["part"]: one["why"] for one in manifest["missing"]}
    assert "does not answer" in missing["rabbitmq.json"]
    assert {one["name"] for one in manifest["files"]} == {*files} - {"README.txt", "manifest.json"}
    for name in files:
        assert name in files["README.txt"] or name == "README.txt"


def test_a_secret_that_the_container_wrote_is_taken_out_and_the_call_is_that_of_a_claim(
    cli: Cli, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", ENV)
    job_id = cli.submit("--secret", "TOKEN")
    launch = LAUNCH.model_copy(update={"delivery": "claim"})
    ref = begun(database, job_id, launch)
    asks = tokens.mint(Settings(callback_keys=KEYS).keys, "k1", "default", ref.id, "assignment")
    ended(database, ref, "i-0123456789abcdef2", f"I know {ENV} and {asks}\n".encode())
    to = tmp_path / "story.zip"
    cli("bundle", job_id, "--to", str(to), "--with-output", code=0, **SETTINGS)
    files = opened(to)
    assert files["output-1-tail.txt"] == "I know *** and ***\n"
    assert not any(ENV in content for content in files.values())
    assert json.loads(files["job.json"])["secrets"] == {"TOKEN": None}
    data = render(ref, JobSpec(image="nginx"), launch, asks)
    call = json.loads(files["attempts.json"])[0]["RunInstances"]
    assert call["parameters"]["UserData"] == {
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def test_without_ec2_broker_and_api_the_rest_is_written_and_the_lack_is_named(
    cli: Cli, database: Database, tmp_path: Path
) -> None:
    job_id = cli.submit("-e", f"PASSWORD={ENV}")
    ended(database, begun(database, job_id), "i-0123456789abcdef1", b"what it wrote")
    to = tmp_path / "story.zip"
    env = {**SETTINGS, "ATEMPORAL_API_URL": "http://127.0.0.1:1", "ATEMPORAL_CALLBACK_KEYS": ""}
    answer: Any = cli.json("bundle", job_id, "--to", str(to), code=0, **env)

    files = opened(to)
    missing = {one["part"]: one["why"] for one in answer["missing"]}
    assert {*missing} == {"ec2.json", "console-*.txt", "rabbitmq.json", "api.json"}
    assert answer["file"] == str(to)
    assert {"file": str(to), **json.loads(files["manifest.json"])} == answer
    assert not any(name.startswith("output") for name in files)
    assert "what it wrote" not in "".join(files.values())
    assert "ec2.json" in files["README.txt"]
    data = json.loads(files["attempts.json"])[0]["RunInstances"]["parameters"]["UserData"]
    assert data == {"unknown": "the callback key 'k1' is not among those set here"}


def test_a_row_that_can_not_be_read_is_named_and_the_rest_is_written(
    cli: Cli, database: Database, tmp_path: Path
) -> None:
    job_id = cli.submit()
    with database.begin() as tx:
        tx.execute(
            text("UPDATE jobs SET spec = spec || '{\"image\": 7}' WHERE id = :id"), {"id": job_id}
        )
    to = tmp_path / "story.zip"
    answer = cli.json("bundle", job_id, "--to", str(to), code=0, **SETTINGS)
    with database.begin() as tx:
        tx.execute(text("DELETE FROM events WHERE job_id = :id"), {"id": job_id})
        tx.execute(text("DELETE FROM jobs WHERE id = :id"), {"id": job_id})
    assert "can not be read" in {one["part"]: one["why"] for one in answer["missing"]}["job.json"]
    assert len(json.loads(opened(to)["events.json"])) == 1


def test_a_launch_group_s_call_is_told_with_its_own_token(
    cli: Cli, database: Database, tmp_path: Path
) -> None:
    ids = {UUID(cli.submit()) for _ in range(2)}
    launch = LAUNCH.model_copy(update={"calls": 0})
    with database.begin() as tx:
        ref, other = (one for one in claim_due(tx, 1000, actor="test") if one.job_id in ids)
        launches.begin_many(tx, {ref: launch, other: launch}, actor="test")
        assert groups.form(tx, UUID(int=77), launch, [ref, other]) == 2
    to = tmp_path / "story.zip"
    cli("bundle", str(ref.job_id), "--to", str(to), code=0, **SETTINGS)
    attempt = json.loads(opened(to)["attempts.json"])[0]
    assert attempt["launch_group"]["id"] == str(UUID(int=77))
    assert attempt["RunInstances"]["parameters"]["ClientToken"] == f"{UUID(int=77)}.0"


def test_what_is_there_is_not_overwritten_and_an_unknown_job_writes_nothing(
    cli: Cli, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    there.write_text("mine")
    job_id = cli.submit()
    assert "is there already" in cli("bundle", job_id, "--to", str(there), code=5).stderr
    assert there.read_text() == "mine"
    assert (
        "no directory" in cli("bundle", job_id, "--to", str(tmp_path / "x" / "y"), code=1).stderr
    )
    cli("bundle", str(UUID(int=5)), "--to", str(tmp_path / "new"), code=4)
    assert not (tmp_path / "new").exists()
