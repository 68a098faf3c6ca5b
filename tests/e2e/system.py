"""The whole system as processes: daemons, API and a cloud, over the tests' Postgres and RabbitMQ."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from atemporal import migrations
from atemporal.identity.signer import CERTIFICATE
from atemporal.model import Job
from atemporal.states import AttemptState, JobState
from atemporal.store import attempts, jobs
from atemporal.store.database import Database
from tests.servers.child import Child
from tests.servers.ports import free_port

DAEMONS = ("scheduler", "launcher", "reaper")
SERVICES = (*DAEMONS, "api")
KEY = "k1:0123456789abcdef0123456789abcdef"


class System:
    """Processes by name; each can be killed, paused and started again on its own.

    A name is a service's, or that with what tells its replicas from each other: `launcher-second`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        database_url: str,
        broker_url: str,
        ec2_url: str,
        certificates: Path | None,
        step: str = "head",
        **more: str,
    ) -> None:
        """Migrate the database as far as to `step`; nothing runs yet.

        `certificates` are those of the machines' documents; without them nothing is launched together.
        """
        migrations.upgrade(database_url, step)
        self.database = Database(database_url)
        self.directory = directory
        self.api_port = free_port()
        self.api_url = f"http://127.0.0.1:{self.api_port}"
        self.health_ports = {name: free_port() for name in DAEMONS}
        self._children: dict[str, Child] = {}
        self.env_of: dict[str, dict[str, str]] = {}
        """What one service alone has in its environment."""
        self.env = {
            **os.environ,
            "ATEMPORAL_DATABASE_URL": database_url,
            "ATEMPORAL_BROKER_URL": broker_url,
            "ATEMPORAL_CALLBACK_KEYS": KEY,
            "ATEMPORAL_CALLBACK_URL": self.api_url,
            "ATEMPORAL_API_PORT": str(self.api_port),
            "ATEMPORAL_IMAGE_ID": "ami-12345678",
            "ATEMPORAL_POLL_INTERVAL_S": "0.2",
            "ATEMPORAL_SWEEP_INTERVAL_S": "0.5",
            "ATEMPORAL_STALE_AFTER_S": "2",
            "ATEMPORAL_CLOUD_GRACE_S": "5",
            # As deployments do it: the endpoint is boto3's own setting.
            "AWS_ENDPOINT_URL_EC2": ec2_url,
            **(
                {"ATEMPORAL_IDENTITY_CERTIFICATES": str(certificates)}
                if certificates
                else {"ATEMPORAL_LAUNCH_GROUP_SIZE": "1"}
            ),
            **more,
        }

    def start(self, *names: str) -> None:
        """Start services and return when they are ready."""
        for name in names:
            env = {**self.env, **self.env_of.get(name, {})}
            if name in self.health_ports:
                env["ATEMPORAL_HEALTH_PORT"] = str(self.health_ports[name])
            self._children[name] = Child(
                [sys.executable, "-m", f"services.{name.partition('-')[0]}"],
                log=self.directory / f"{name}.log",
                env=env,
            )
        for name in names:
            self._children[name].wait_ready(functools.partial(self.ready, name))

    def revive(self, *names: str) -> None:
        """Let go on what is paused, start what does not run; return when all are ready."""
        for name in set(names) & set(self._children):
            self.signal(name, signal.SIGCONT)
        self.start(*(name for name in names if name not in self._children))
        for name in names:
            self._children[name].wait_ready(functools.partial(self.ready, name))

    def ready(self, name: str) -> bool:
        """Ask a service whether it is ready."""
        try:
            url = f"http://127.0.0.1:{self.port(name)}/readyz"
            return httpx.get(url, timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def port(self, name: str) -> int:
        """Where a service answers probes and Prometheus."""
        return self.api_port if name == "api" else self.health_ports[name]

    def metrics(self, name: str) -> str:
        """A service's metrics as text."""
        return httpx.get(f"http://127.0.0.1:{self.port(name)}/metrics").text

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a service."""
        os.kill(self._children[name].pid, number)

    def kill(self, name: str) -> None:
        """Kill -9 a service and wait for its end."""
        self._children.pop(name).end(signal.SIGKILL)

    def stop(self, name: str) -> float:
        """End a service in order; return the seconds that took."""
        begun = time.monotonic()
        self._children.pop(name).end(signal.SIGTERM)
        return time.monotonic() - begun

    def close(self) -> None:
        """Kill what runs."""
        for name in list(self._children):
            self.signal(name, signal.SIGCONT)
            self.kill(name)
        self.database.dispose()

    def logs(self) -> str:
        """Everything the services wrote, for a failed test's reader."""
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-6000:]}"
            for path in sorted(self.directory.glob("*.log"))
        )

    def submit(self, *command: str, **fields: Any) -> UUID:
        """Submit a job over HTTP."""
        body = {"image": "busybox:1.36", "ports": [], **fields}
        if command:
            body["command"] = list(command)
        answer = httpx.post(f"{self.api_url}/jobs", json=body, timeout=20)
        assert answer.status_code == 201, answer.text
        return UUID(answer.json()["id"])

    def job(self, job_id: UUID) -> Job:
        """Read a job from the database."""
        with self.database.begin() as tx:
            return jobs.get(tx, job_id)

    def wait(self, what: str, condition: Callable[[], object], within_s: float = 60) -> None:
        """Poll until the condition holds; fail with everybody's log."""
        deadline = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {within_s} s: {what}\n{self.logs()}")
            time.sleep(0.05)

    def wait_state(self, job_id: UUID, state: JobState, within_s: float = 60) -> Job:
        """Wait until a job is in a state."""
        self.wait(
            f"job {job_id} {state} (is {self.job(job_id)})",
            lambda: self.job(job_id).state is state,
            within_s,
        )
        return self.job(job_id)

    def wait_closed(self, job_id: UUID, within_s: float = 90) -> Job:
        """Wait until a job has finished and every instance of it is confirmed gone."""
        self.wait(
            f"job {job_id} closed",
            lambda: (
                (job := self.job(job_id)).state is JobState.FINISHED
                and all(one.state is AttemptState.CLOSED for one in job.attempts)
            ),
            within_s,
        )
        return self.job(job_id)

    def open_attempts(self) -> int:
        """How many attempts may still have an instance."""
        with self.database.begin() as tx:
            return len(attempts.still_open(tx))


class TwinProcess:
    """The twin as a process of its own."""

    def __init__(self, directory: Path, *, engine: str = "process", **env: str) -> None:
        """Start it and wait until it answers; `env` is added to its environment."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._directory, self._engine, self._env = directory, engine, {**os.environ, **env}
        self.certificates = directory / "twin" / CERTIFICATE
        self._start()

    def _start(self) -> None:
        self._child = Child(
            [
                *(sys.executable, "-m", "atemporal.twin", "--engine", self._engine),
                *("--dir", self._directory / "twin", "--port", str(self.port)),
                "--power-off",
            ],
            log=self._directory / "twin.log",
            env=self._env,
        )
        self._child.wait_ready(self._answers)

    def _answers(self) -> bool:
        try:
            httpx.get(self.url, timeout=2)
        except httpx.TransportError:
            return False
        return True

    def kill_and_restart(self) -> None:
        """Kill -9 and start again on the same directory; its machines live on."""
        self._child.end(signal.SIGKILL)
        self._start()

    def close(self) -> None:
        """End it and all its machines."""
        self._child.end(signal.SIGTERM)


@functools.cache
def ec2(url: str) -> Any:
    """A plain boto3 client, as another observer of the same cloud."""
    from boto3.session import Session

    return Session(region_name="us-east-1").client("ec2", endpoint_url=url)


def instances(url: str) -> list[Mapping[str, Any]]:
    """Every instance that was ever launched there."""
    pages = ec2(url).get_paginator("describe_instances").paginate()
    return [
        instance
        for page in pages
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
    ]


def as_json(text: bytes) -> Any:
    """Parse a message's body."""
    return json.loads(text)
