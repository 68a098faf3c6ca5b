"""A system whose processes are of two releases, and the jobs that show that it works.

Promise: `launcher` is a process of the present tree, `launcher-before` one of the release before, and so
for each service. Clients and machines know one address, behind which the APIs of both are.
Mechanism: each container writes a line when it starts, so that it is not the records that tell how often
and on which instance a job ran.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from atemporal.states import JobState, Outcome
from tests.chaos.exits import SAY, read_runs
from tests.e2e.system import SERVICES, System, TwinProcess, instances
from tests.servers.ports import free_port
from tests.upgrade.balancer import Balancer
from tests.upgrade.before import Before


def before(*kinds: str) -> tuple[str, ...]:
    """The names of the processes of the release before."""
    return tuple(f"{kind}-before" for kind in kinds)


@dataclass(frozen=True)
class Expected:
    """How a job has to end, and by how many containers."""

    job_id: UUID
    outcome: Outcome
    runs: int = 1


class Rolling(System):
    """Processes of both releases on one database, one broker, one twin."""

    def __init__(
        self,
        directory: Path,
        twin: TwinProcess,
        release: Before,
        *,
        step: str = "head",
        **where: str,
    ) -> None:
        """Migrate to `step`; nothing runs yet. `where` are the URLs of the database and the broker."""
        super().__init__(
            directory,
            ec2_url=twin.url,
            certificates=twin.certificates,
            step=step,
            database_url=where.pop("database_url"),
            broker_url=where.pop("broker_url"),
            **where,
        )
        self.twin, self.release = twin, release
        self.runs = directory / "runs"
        self.runs.mkdir()
        for name in before(*SERVICES):
            self.health_ports[name] = free_port()
            self.env_of[name] = dict(release.env)
        api = self.health_ports["api-before"]
        self.env_of["api-before"]["ATEMPORAL_API_PORT"] = str(api)
        self._balancer = Balancer((self.api_port, api))
        self.api_url = self._balancer.url
        self.env["ATEMPORAL_CALLBACK_URL"] = self.api_url
        self._expected: list[Expected] = []
        self._keys: dict[UUID, str] = {}

    def close(self) -> None:
        """Kill what runs."""
        super().close()
        self._balancer.close()

    def run(self, then: str, *, outcome: Outcome, runs: int = 1, **fields: Any) -> UUID:
        """Submit a job that says that it runs, and then does as the shell is told."""
        # A connection that an API closed while it ended brings no answer; the key makes it one job.
        key = str(len(self._expected))
        say = SAY.format(what="start", path=self.runs / key)
        job_id = self.submit("sh", "-c", f"{say}; {then}", key=key, **fields)
        self._expected.append(Expected(job_id, outcome, runs))
        self._keys[job_id] = key
        return job_id

    def hold_until(self, sign: Path) -> UUID:
        """Submit a job that ends when there is the file `sign`, and then writes its name."""
        then = f"until [ -e {sign} ]; do sleep 0.1; done; echo {sign.name}"
        return self.run(then, outcome=Outcome.SUCCEEDED)

    def group_of(self, many: int) -> None:
        """Submit jobs that are alike, and let the launchers see them all at once."""
        launchers = [name for name in ("launcher", *before("launcher")) if name in self._children]
        for name in launchers:
            self.signal(name, signal.SIGSTOP)
        try:
            made = [self.run("true", outcome=Outcome.SUCCEEDED) for _ in range(many)]
            self.wait("they are published", lambda: not self._any(made, JobState.SCHEDULED))
        finally:
            for name in launchers:
                self.signal(name, signal.SIGCONT)
        self.wait("they are begun", lambda: not self._any(made, JobState.QUEUED))
        begun = [self.job(job_id).attempts[0] for job_id in made]
        assert any(one.group_id is not None for one in begun), "each was launched alone"

    def _any(self, ids: Iterable[UUID], state: JobState) -> bool:
        return any(self.job(job_id).state is state for job_id in ids)

    def cancel(self, job_id: UUID) -> None:
        """Cancel a job whose container runs."""
        self.wait_state(job_id, JobState.RUNNING)
        self.wait("its container says so", lambda: bool(self.runs_of(job_id)))
        httpx.delete(f"{self.api_url}/jobs/{job_id}", timeout=20).raise_for_status()

    def every_kind(self) -> None:
        """Submit a job to launch alone, four together, one to cancel, one that is tried again."""
        # Two launchers take two of them each.
        self.group_of(4)
        # Machines of another size are never launched with the others.
        self.run("true", outcome=Outcome.SUCCEEDED, machine={"disk_gb": 9})
        failing = {"max_attempts": 2, "backoff_s": 0, "machine": {"disk_gb": 10}}
        self.run("exit 3", outcome=Outcome.FAILED, runs=2, **failing)
        self.cancel(self.run("sleep 600", outcome=Outcome.CANCELLED, machine={"disk_gb": 11}))

    def ended(self, *but: UUID) -> None:
        """Wait for the ends of all jobs, `but` of some; each has to be as it must be."""
        for one in self._expected:
            if one.job_id in but:
                continue
            job = self.wait_closed(one.job_id)
            assert job.outcome is one.outcome, f"{job}\n{self.logs()}"
            ran = self.runs_of(one.job_id)
            assert sorted(number for number, _ in ran) == list(range(1, one.runs + 1)), (job, ran)
            assert ran == [(a.ref.number, a.instance_id) for a in job.attempts], (job, ran)

    def runs_of(self, job_id: UUID) -> list[tuple[int, str]]:
        """By the containers' own word: the number of each attempt that ran, and its instance."""
        runs = read_runs(self.runs / self._keys[job_id])
        return [(run.number, run.instance_id) for run in runs]

    def logs_with(self, what: str) -> list[str]:
        """Which logs have `what` in them."""
        logs = self.directory.glob("*.log")
        return [path.name for path in logs if what in path.read_text(errors="replace")]

    def in_sync(self) -> None:
        """Nothing is left, and the audits of both releases find no fault with the whole history."""
        left = [
            one["InstanceId"]
            for one in instances(self.twin.url)
            if one["State"]["Name"] != "terminated"
        ]
        assert left == []
        words = ("audit", "--history", "-o", "json")
        for name, done in (
            ("the release before", self.release.cli(*words, env=self.env)),
            ("this one", self.cli(*words)),
        ):
            assert done.returncode == 0, (name, done.stdout, done.stderr)
            assert json.loads(done.stdout)

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the present tree's `atemporal WORDS...`."""
        return subprocess.run(
            [sys.executable, "-c", "from atemporal.start import cli; cli()", *words],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
