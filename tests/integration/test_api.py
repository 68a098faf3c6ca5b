"""The API as a process of its own, called by the original's own clients, with its servers failing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from atemporal import migrations
from atemporal.broker import Link
from atemporal.messages import REAP, decode
from atemporal.model import AttemptRef
from atemporal.store import jobs
from atemporal.store.database import Database
from tests.api import KEYS, Api, token_of, until
from tests.servers.child import Child
from tests.servers.ports import free_port
from tests.servers.postgres import Postgres
from tests.servers.rabbitmq import RabbitMQ


@contextmanager
def running(
    folder: Path, database_url: str, broker_url: str = "amqp://guest:guest@127.0.0.1:1//"
) -> Iterator[tuple[Api, Child]]:
    """`atemporal-api` as a process."""
    port = free_port()
    env = os.environ | {
        "ATEMPORAL_DATABASE_URL": database_url,
        "ATEMPORAL_BROKER_URL": broker_url,
        "ATEMPORAL_CALLBACK_KEYS": KEYS,
        "ATEMPORAL_API_PORT": str(port),
        "ATEMPORAL_LOG_FORMAT": "json",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    child = Child([sys.executable, "-m", "services.api"], log=folder / "api.log", env=env)
    database = Database(database_url)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as http:
        try:
            child.wait_ready(lambda: _answers(http))
            yield Api(http, database), child
        finally:
            child.end(signal.SIGTERM)
            database.dispose()


def _answers(http: httpx.Client) -> bool:
    try:
        return http.get("/").status_code == 200
    except httpx.ConnectError:
        return False


@pytest.fixture(scope="module")
def api(
    tmp_path_factory: pytest.TempPathFactory, database_url: str, broker_url: str
) -> Iterator[Api]:
    migrations.upgrade(database_url)
    with running(tmp_path_factory.mktemp("api"), database_url, broker_url) as (served, _):
        yield served


def shell(api: Api, script: str, *arguments: str) -> tuple[int, dict[str, object]]:
    """Run a client's own lines, with SERVER as the API's address; return status and body."""
    script = script.replace("SERVER", str(api.http.base_url.netloc.decode()))
    script = re.sub(r"\bcurl\b", r"curl -s --noproxy '*' -w '\\n%{http_code}'", script)
    done = subprocess.run(
        ["bash", "-c", script, "client", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    body, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(body) if body else {}


def test_an_image_alone_can_be_submitted(api: Api) -> None:
    status, job = shell(api, 'curl -d "image=nginx:1.9" -X POST http://SERVER/jobs')
    assert status == 201
    assert (job["image"], job["state"], job["instances"]) == ("nginx:1.9", "scheduled", [])


def test_time_and_payload_can_be_submitted(api: Api) -> None:
    status, job = shell(
        api,
        'payload=$(echo "NAME=bond, james bond!" | base64); '
        'curl -d "image=nginx:1.9" -d "time=2015-04-25T05:27:27.069Z" -d "payload=$payload" '
        "-X POST http://SERVER/jobs",
    )
    assert status == 201
    assert job["time"] == "2015-04-25T05:27:27.069Z"
    assert job["env"] == {"NAME": "bond, james bond!"}
    assert job["payload"] == "TkFNRT1ib25kLCBqYW1lcyBib25kIQo="


@pytest.mark.parametrize("command", ["ls -la", "echo " + "~~>>??\u00ff" * 40])
def test_a_payload_that_base64_wraps_can_be_submitted(api: Api, command: str) -> None:
    script = (
        'payload=$(echo -e "DUMMY_CMD=$3\\nHACKED=1337" | base64); '
        'curl -d "image=andrerocker/dummy-exec" -d "payload=$payload" -X POST http://SERVER/jobs'
    )
    status, job = shell(api, script, "-", "-", command)
    assert status == 201
    assert job["env"] == {"DUMMY_CMD": command, "HACKED": "1337"}


def test_an_image_that_is_a_command_is_refused(api: Api) -> None:
    script = """curl -d "image=andrerocker; sh -c ' echo RAHHH!'" -X POST http://SERVER/jobs"""
    status, response = shell(api, script)
    assert status == 422
    assert "image" in str(response["error"])


def test_the_root_and_the_list_respond_as_the_original_did(api: Api) -> None:
    status, root = shell(api, "curl http://SERVER/")
    assert (status, root.keys() >= {"message", "now"}) == (200, True)
    status, listing = shell(api, "curl http://SERVER/jobs.json")
    assert status == 200
    assert isinstance(listing["jobs"], list)
    assert listing["total"] == len(listing["jobs"])


def test_callbacks_change_the_job_and_notify_the_reaper(api: Api, broker_url: str) -> None:
    ref = api.warming()
    call = (
        f'curl -H "Authorization: Bearer {token_of(ref)}" '
        f"-X METHOD http://SERVER/jobs/{ref.job_id}/callback.json"
    )
    for method, state in (("PATCH", "running"), ("DELETE", "finished")):
        script = call.replace("METHOD", method)
        assert shell(api, script) == (204, {})
        assert shell(api, f"curl http://SERVER/jobs/{ref.job_id}")[1]["state"] == state
        status, response = shell(api, script)
        assert (status, set(response)) == (422, {"error"})
    cancelled = api.warming()
    assert api.http.delete(f"/jobs/{cancelled.job_id}").status_code == 200
    assert received(broker_url, 3) == {
        ("instance.running", ref),
        ("instance.exited", ref),
        ("job.cancel", cancelled),
    }


def received(broker_url: str, count: int) -> set[tuple[str, AttemptRef]]:
    """Take what waits for the reaper."""
    link = Link(broker_url, name="test reaper")
    found: set[tuple[str, AttemptRef]] = set()

    def all_came() -> bool:
        batch = link.receive(REAP, limit=10)
        messages = [decode(REAP, one.body) for one in batch]
        found.update((message.type, message.ref) for message in messages)
        link.ack(batch)
        return len(found) >= count

    try:
        until(all_came)
    finally:
        link.close()
    return found


def test_callbacks_without_the_token_or_for_no_job_are_refused(api: Api) -> None:
    ref = api.warming()
    for method in ("PATCH", "DELETE"):
        assert shell(api, f"curl -X {method} http://SERVER/jobs/1/callback.json")[0] == 404
        status, response = shell(
            api, f"curl -X {method} http://SERVER/jobs/{ref.job_id}/callback.json"
        )
        assert (status, set(response)) == (401, {"error"})


def test_while_the_broker_is_away_calls_succeed_and_it_is_found_again(
    tmp_path: Path, rabbitmq_server: RabbitMQ, broker_url: str, database_url: str
) -> None:
    migrations.upgrade(database_url)
    rabbitmq_server.stop()
    with ExitStack() as broker:
        broker.callback(rabbitmq_server.start)
        with running(tmp_path, database_url, broker_url) as (api, _):
            ref = api.running("c")
            assert api.exit(ref, claim="c", exit_code=0).status_code == 204
            assert api.http.get("/readyz").status_code == 200
            broker.close()
            assert received(broker_url, 2) >= {("instance.running", ref), ("instance.exited", ref)}


def test_without_postgres_calls_are_503_until_it_is_back(
    tmp_path: Path, postgres_server: Postgres, database_url: str
) -> None:
    migrations.upgrade(database_url)
    with running(tmp_path, database_url) as (api, _):
        ref = api.warming()
        assert api.http.get("/jobs").status_code == 200
        api.database.dispose()
        postgres_server.stop()
        try:
            for response in (
                api.http.get("/jobs"),
                api.http.post("/jobs", data={"image": "nginx"}),
                api.http.get(f"/jobs/{ref.job_id}"),
                api.claim(ref, claim="c"),
                api.http.get("/readyz"),
            ):
                assert response.status_code == 503
                assert response.json().keys() == {"error"}
                assert "127.0.0.1" not in response.text
            assert api.http.get("/").status_code == 200
            assert api.http.get("/healthz").status_code == 200
        finally:
            postgres_server.start()
        assert api.http.get("/readyz").status_code == 200
        assert api.claim(ref, claim="c").status_code == 204
        assert api.exit(ref, claim="c", exit_code=0).status_code == 204


def test_the_api_starts_without_any_server(tmp_path: Path) -> None:
    with running(tmp_path, "postgresql://nobody@127.0.0.1:1/none") as (api, _):
        assert api.http.get("/jobs").status_code == 503


def test_on_an_older_database_readyz_is_503_and_names_the_remedy(
    tmp_path: Path, postgres_server: Postgres
) -> None:
    url = postgres_server.create_database()
    migrations.upgrade(url, "0001")
    with running(tmp_path, url) as (api, _):
        assert api.http.get("/readyz").status_code == 503
        until(lambda: '"not ready"' in (tmp_path / "api.log").read_text())
        assert "atemporal db upgrade" in (tmp_path / "api.log").read_text()
        migrations.upgrade(url)
        assert api.http.get("/readyz").status_code == 200


def test_a_row_that_can_not_be_read_is_a_500(tmp_path: Path, database_url: str) -> None:
    with running(tmp_path, database_url) as (api, _):
        job_id, other = api.submitted(env={"A": "hush"}), api.submitted()
        with api.database.begin() as tx:
            bad = '{"image": 7, "env": {"A": ["hush"]}}'
            tx.execute(
                text("UPDATE jobs SET spec = CAST(:bad AS jsonb) WHERE id = :id"),
                {"bad": bad, "id": job_id},
            )
        response = api.http.get(f"/jobs/{job_id}")
        assert response.status_code == 500
        assert str(job_id) in response.json()["error"]
        listed = {job["id"] for job in api.http.get("/jobs").json()["jobs"]}
        assert str(other) in listed
        assert str(job_id) not in listed
        assert "atemporal_unreadable_rows_total 2.0" in api.http.get("/metrics").text
        with api.database.begin() as tx:
            tx.execute(text("DELETE FROM events WHERE job_id = :id"), {"id": job_id})
            tx.execute(text("DELETE FROM jobs WHERE id = :id"), {"id": job_id})
    log = (tmp_path / "api.log").read_text()
    assert str(job_id) in log
    assert "hush" not in log


def test_the_log_has_jobs_and_no_secrets(tmp_path: Path, database_url: str) -> None:
    migrations.upgrade(database_url)
    with running(tmp_path, database_url) as (api, child):
        ref = api.running("planted-claim", env={"PLANTED": "planted-value"})
        api.http.post("/jobs", json={"image": "a", "env": {"B": "planted-value"}, "x": "planted"})
        api.http.get("/jobs?label=planted=1")
        until(lambda: '"method": "GET", "path": "/jobs"' in child.output(200))
        lines = [json.loads(line) for line in child.output(200).splitlines()]
    lines_of_it = [line for line in lines if line.get("job") == str(ref.job_id)]
    assert {line["event"] for line in lines_of_it} >= {"claimed", "request"}
    assert {line["service"] for line in lines} == {"api"}
    assert "planted-value" not in str(lines)
    assert "planted=1" not in str(lines)
    assert token_of(ref) not in str(lines)


def test_sigterm_ends_the_api_in_order_and_jobs_survive(tmp_path: Path, database_url: str) -> None:
    migrations.upgrade(database_url)
    with running(tmp_path, database_url) as (api, child):
        job_id = UUID(api.http.post("/jobs", data={"image": "nginx"}).json()["id"])
        child.end(signal.SIGTERM, within_s=25)
        assert '"event": "stopped"' in child.output(1)
        assert api.job(job_id).id == job_id


def test_a_request_in_hand_is_completed_before_the_end(tmp_path: Path, database_url: str) -> None:
    migrations.upgrade(database_url)
    with running(tmp_path, database_url) as (api, child), ThreadPoolExecutor(2) as pool:
        job_id = api.submitted(delay_s=3600)
        with api.database.begin() as tx:
            jobs.get(tx, job_id, lock=True)
            asked = pool.submit(api.http.delete, f"/jobs/{job_id}")
            until(lambda: _waits_for_a_lock(api.database))
            ended = pool.submit(child.end, signal.SIGTERM, 25)
            until(lambda: _refuses(api.http))
            assert not asked.done()
        assert asked.result(30).json()["outcome"] == "cancelled"
        ended.result(30)
        assert '"event": "stopped"' in child.output(1)


def _refuses(http: httpx.Client) -> bool:
    try:
        httpx.get(f"{http.base_url}/", trust_env=False)
    except httpx.ConnectError:
        return True
    return False


def _waits_for_a_lock(database: Database) -> bool:
    with database.begin() as tx:
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        return tx.scalar(text(waiting)) is not None


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({}, "ATEMPORAL_CALLBACK_KEYS"),
        ({"ATEMPORAL_API_PORT": "many"}, "ATEMPORAL_API_PORT"),
    ],
)
def test_a_setting_it_lacks_is_named_at_the_start(env: dict[str, str], named: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "services.api"],
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_the_api_shows_its_help_without_settings() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "services.api", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert "atemporal-api" in done.stdout
