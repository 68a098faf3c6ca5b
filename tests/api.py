"""The API, served for a test, and jobs brought into a state as the daemons would."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import httpx

from atemporal import migrations, tokens
from atemporal.model import AttemptRef, Job, parse_spec
from atemporal.settings import Settings
from atemporal.store import attempts, events, jobs, launches
from atemporal.store.database import Database
from services.api.server import ApiServer
from tests.claims import claim_due
from tests.launches import LAUNCH

KEYS = "k1:0123456789abcdef0123456789abcdef"


def token_of(ref: AttemptRef, deployment: str = "default") -> str:
    """The token that the machine of this attempt has."""
    return tokens.mint({"k1": KEYS.removeprefix("k1:").encode()}, "k1", deployment, ref.id)


def bearer(token: str) -> dict[str, str]:
    """The header that carries a token."""
    return {"Authorization": f"Bearer {token}"}


class Api:
    """A served API: `http` calls it, the rest is what happens behind it."""

    def __init__(self, http: httpx.Client, database: Database) -> None:
        """Take a client of the server and the database below it."""
        self.http = http
        self.database = database

    def submitted(self, **fields: Any) -> UUID:
        """Make a job, past the API."""
        with self.database.begin() as tx:
            spec = parse_spec({"image": "busybox", **fields})
            return jobs.submit_one(tx, spec, actor="test").job_id

    def warming(self, instance_id: str | None = None, **fields: Any) -> AttemptRef:
        """Make a job whose first attempt's machine boots."""
        job_id = self.submitted(**fields)
        self.emit(job_id)
        ref = AttemptRef(job_id, 1)
        with self.database.begin() as tx:
            assert launches.begin(tx, ref, LAUNCH, actor="test")
            if instance_id:
                assert attempts.launched(tx, ref, instance_id, actor="test")
        return ref

    def running(self, claim: str = "c-1", **fields: Any) -> AttemptRef:
        """Make a job whose first attempt runs."""
        ref = self.warming(**fields)
        assert self.claim(ref, claim=claim).status_code == 204
        return ref

    def emit(self, job_id: UUID) -> None:
        """Bring a scheduled job to queued, as a scheduler does."""
        with self.database.begin() as tx:
            due = claim_due(tx, 10_000, actor="test")
        assert job_id in {ref.job_id for ref in due}

    def claim(self, ref: AttemptRef, **body: Any) -> httpx.Response:
        """Ask to run, as the machine of this attempt."""
        path = f"/jobs/{ref.job_id}/callback"
        return self.http.patch(path, json=body, headers=bearer(token_of(ref)))

    def exit(self, ref: AttemptRef, **body: Any) -> httpx.Response:
        """Report the end, as the machine of this attempt."""
        path = f"/jobs/{ref.job_id}/callback"
        return self.http.request("DELETE", path, json=body, headers=bearer(token_of(ref)))

    def job(self, job_id: UUID) -> Job:
        """Read a job from the database."""
        with self.database.begin() as tx:
            return jobs.get(tx, job_id)

    def actors(self, job_id: UUID) -> list[tuple[str, str]]:
        """A job's history as (transition, who)."""
        with self.database.begin() as tx:
            return [(event.type, event.actor) for event in events.of_job(tx, job_id)]


@contextmanager
def serving(database_url: str, **settings: Any) -> Iterator[Api]:
    """Serve on a free port of the loopback address; the broker is away unless settings name one."""
    migrations.upgrade(database_url)
    effective = Settings.model_validate(
        {
            "callback_keys": KEYS,
            "api_port": 0,
            "broker_url": "amqp://guest:guest@127.0.0.1:1//",
            "stop_within_s": 5,
            "instance_profile": "jobs",
            **settings,
        }
    )
    database = Database(database_url)
    server = ApiServer(effective, database)
    server.start()
    port = httpx.URL(server.url).port
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30
        ) as http:
            yield Api(http, database)
    finally:
        assert server.stop()
        database.dispose()


def until(condition: Callable[[], bool], within_s: float = 30) -> None:
    """Wait for what another process has to do."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)
