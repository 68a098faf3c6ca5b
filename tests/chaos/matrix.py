"""Services as children of a process that has imported everything; and the cases of the crash matrix.

A case: the service under test is the only one that may die; a job is submitted; the service dies at
its point and is started again, whole; in the calm the job must have ended as if nothing had happened.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pika
from sqlalchemy import text

from atemporal.clock import format_utc
from atemporal.cloud.instance import JOB_TAG
from atemporal.messages import COMMANDS
from atemporal.model import Job
from atemporal.states import Outcome
from tests.chaos.appointment import Appointment
from tests.chaos.dying import DIED, Point, Service, run
from tests.e2e.system import SERVICES, System, ec2
from tests.invariants import assert_invariants

RUN = ("sh", "-c", "echo done; exit 7")
# Long enough that its plan is due after the submit, seconds ahead of its launch.
AHEAD = {"delay_s": 24, "lead": 6}
_SPAWN = multiprocessing.get_context("forkserver")
_SPAWN.set_forkserver_preload(["tests.chaos.preloaded"])


class _Forked:
    """A running service, with the interface of `tests.servers.child.Child`."""

    def __init__(self, service: Service) -> None:
        self._process = _SPAWN.Process(target=run, args=(service,), name=service.name)
        self._process.start()
        self._service = service

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.exitcode

    def wait_ready(self, ready: Callable[[], bool], within_s: float = 60) -> None:
        deadline = time.monotonic() + within_s
        while not ready():
            log = Path(self._service.log).read_text(errors="replace")[-3000:]
            assert self._process.is_alive(), f"{self._service.name} ended at once:\n{log}"
            assert time.monotonic() < deadline, f"{self._service.name} is not ready:\n{log}"
            time.sleep(0.02)

    def end(self, how: signal.Signals) -> None:
        if self._process.is_alive():
            if how is signal.SIGKILL:
                self._process.kill()
            else:
                self._process.terminate()
        self._process.join()
        self._process.close()


@dataclass(frozen=True)
class Scenario:
    """Which service may die, how the job comes, and what does not work meanwhile.

    `has` are effects it must have: where another service can be quicker, it is counted again.
    `many` jobs are due at the same time. `recurring`: a schedule comes instead of a job.
    """

    service: str
    title: str
    has: tuple[tuple[str, str], ...]
    many: int = 1
    by_message: bool = False
    deaf: bool = False
    silent: bool = False
    ahead: bool = False
    recurring: bool = False


SCENARIOS = (
    # The slowest first: they are run side by side.
    Scenario(
        "reaper",
        "the exit is on the console only",
        (("reap-sweep", "ec2 console"), ("reap-sweep", "commit")),
        silent=True,
    ),
    Scenario(
        "scheduler",
        "a job message comes, and one that nobody can use",
        (
            *(("submit", "commit"), ("submit", "ack"), ("submit", "publish reply")),
            *(("dead-letters", "commit"), ("dead-letters", "ack")),
            *(("due", "publish job.due"), ("relay", "commit")),
        ),
        by_message=True,
    ),
    Scenario(
        "launcher",
        "the job is due",
        (
            *(("launch", "commit"), ("run-instances", "take")),
            *(("run-instances", "ec2 run"), ("run-instances", "commit")),
        ),
    ),
    Scenario(
        "launcher",
        "the message is lost",
        (("launch-sweep", "commit"), ("run-instances", "ec2 run")),
        deaf=True,
    ),
    Scenario(
        "launcher",
        "jobs of one shape are due together",
        (("run-instances", "ec2 run_group"), ("run-instances", "commit")),
        many=3,
    ),
    Scenario(
        "reaper",
        "the job ends",
        (
            *(("reap", "ack"), ("reap", "take"), ("reap", "ec2 terminate")),
            ("reap-sweep", "commit"),
        ),
    ),
    Scenario("reaper", "the messages are lost", (("reap-sweep", "commit"),), deaf=True),
    Scenario(
        "api",
        "submit, claim, exit",
        (("http", "commit"), ("publish", "publish instance.exited")),
    ),
    Scenario("scheduler", "the job has a time", (("lead", "commit"),), ahead=True),
    Scenario("api", "the machine holds", (("http", "commit"),), ahead=True),
    Scenario("scheduler", "a schedule is due", (("recurring", "commit"),), recurring=True),
    Scenario("api", "a schedule is edited", (("http", "commit"),), recurring=True),
)
TRIES = 12
# Seconds; a busy machine is no failure of the services.
PATIENCE_S = 120
# For an effect that may come or not: another job every six seconds.
CHANCE_S = 30
# Long enough that all of them are submitted before they are due.
TOGETHER_S = 3.0


class Matrix(System):
    """The whole system; services come and go by the case."""

    ec2_url: str = ""
    broker_url: str = ""

    def launch(self, name: str, **how: Any) -> _Forked:
        """Start a service without waiting for it."""
        env = dict(self.env)
        if name in self.health_ports:
            env["ATEMPORAL_HEALTH_PORT"] = str(self.health_ports[name])
        log = self.directory / f"{name}.log"
        log.touch()
        service = Service(name, env, str(log), **how)
        child = _Forked(service)
        self._children[name] = child  # type: ignore[assignment]
        return child

    def start(self, *names: str) -> None:
        """Start services and return when they are ready."""
        for name in names:
            child = self.launch(name)
            child.wait_ready(lambda name=name: self.ready(name))  # type: ignore[misc]

    def count(self, scenario: Scenario) -> Counter[tuple[str, str]]:
        """Run a scenario without a death; return how often each effect came.

        Raises:
            AssertionError: an effect that the scenario must have never came.
        """
        counted: Counter[tuple[str, str]] = Counter()
        for _ in range(TRIES):
            effects = self.directory / f"effects-{uuid4().hex}"
            effects.touch()
            with self._prepared(scenario):
                self._replace(scenario, effects=str(effects))
                for submit in self._submits(scenario):
                    self._check(submit, scenario)
                self._replace(scenario)
            lines = [line.split("\t") for line in effects.read_text().splitlines()]
            counted |= Counter((loop, kind) for loop, kind, _ in lines)
            if all(effect in counted for effect in scenario.has):
                return counted
        raise AssertionError(f"{scenario} had only {dict(counted)}")

    def case(self, scenario: Scenario, death: Point) -> bool:
        """One death; False when its moment never came, though every job ended as it should.

        Some effects come by chance: a sweep that is quicker than a message, a second batch. Only
        those that the scenario must have are waited for to the end.

        Raises:
            AssertionError: something did not end as if nothing had happened; or it never died of an
                effect that the scenario must have.
        """
        surely = (death.loop, death.kind) in scenario.has
        with self._prepared(scenario):
            child = self._replace(scenario, effects=str(self.directory / "effects"), death=death)
            jobs = self._submits(scenario)
            deadline = time.monotonic() + (PATIENCE_S if surely else CHANCE_S)
            following = time.monotonic() + 6
            while child.exit_code is None:
                if time.monotonic() > deadline:
                    assert not surely, f"it never came to {death}"
                    break
                if time.monotonic() > following:
                    # Several effects can fall together; another job makes up for them.
                    jobs += self._submits(scenario)
                    following += 6
                self._end_when_told(jobs, scenario)
                time.sleep(0.01)
            died = child.exit_code is not None
            assert not died or child.exit_code == DIED, child.exit_code
            self._replace(scenario)
            for job in jobs:
                self._check(job, scenario)
            return died

    @contextmanager
    def _prepared(self, scenario: Scenario) -> Iterator[None]:
        if scenario.silent:
            self.kill("api")
            self.launch("api", mute=True).wait_ready(lambda: self.ready("api"))
        yield
        if scenario.silent:
            self.kill("api")
            self.start("api")

    def _replace(self, scenario: Scenario, **how: Any) -> _Forked:
        self.kill(scenario.service)
        return self.launch(scenario.service, deaf=scenario.deaf, **how)

    def _submits(self, scenario: Scenario) -> list[_Submit | Appointment]:
        if scenario.recurring:
            return [Appointment(self.api_url, self.database)]
        if scenario.many == 1:
            more = AHEAD if scenario.ahead else {}
            return [_Submit(self, by_message=scenario.by_message, more=more)]
        at = format_utc(datetime.now(UTC) + timedelta(seconds=TOGETHER_S))
        together: list[_Submit | Appointment] = [
            _Submit(self, by_message=False, more={"time": at}) for _ in range(scenario.many)
        ]
        # All of them before the first is waited for; who is not answered is asked again there.
        for submit in together:
            submit.poll()
        return together

    def _end_when_told(self, jobs: Sequence[_Submit | Appointment], scenario: Scenario) -> None:
        for submit in jobs:
            if not submit.poll() or isinstance(submit, Appointment):
                continue
            if scenario.silent and not submit.ended:
                submit.ended = _end_its_machine(self.ec2_url, submit.job_id)

    def _check(self, submit: _Submit | Appointment, scenario: Scenario) -> None:
        if isinstance(submit, Appointment):
            self.wait(f"{scenario}: {submit} is over", submit.poll, PATIENCE_S)
            submit.check()
            assert_invariants(self.database)
            return

        def closed() -> bool:
            self._end_when_told([submit], scenario)
            if not submit.poll():
                return False
            if submit.by_message and not submit.letter_is_kept():
                return False
            job = self.job(submit.job_id)
            return job.finished_at is not None and all(one.closed_at for one in job.attempts)

        self.wait(f"{scenario}: {submit} closed", closed, PATIENCE_S)
        job: Job = self.job(submit.job_id)
        assert (job.outcome, job.exit_code, job.attempt) == (Outcome.FAILED, 7, 1), job
        assert job.attempts[0].log_tail == b"done\n"
        if scenario.ahead:
            started_at = job.attempts[0].started_at
            assert started_at is not None
            assert started_at >= job.run_at
        launched = _launched(self.ec2_url, submit.job_id, job.attempts[0].instance_id)
        assert [one["InstanceId"] for one in launched] == [job.attempts[0].instance_id]
        assert launched[0]["State"]["Name"] == "terminated"
        assert_invariants(self.database)


@dataclass
class _Submit:
    """A client that asks, with the same key, until it is answered."""

    matrix: Matrix
    by_message: bool
    more: Mapping[str, int | str] = field(default_factory=dict)
    key: str = field(default_factory=lambda: uuid4().hex)
    answer: UUID | None = None
    ended: bool = False
    _sent: bool = False

    @property
    def job_id(self) -> UUID:
        assert self.answer is not None
        return self.answer

    def poll(self) -> bool:
        """Ask, or look for the answer; tell whether the job's id is known."""
        if self.answer is None:
            self.answer = self._by_message() if self.by_message else self._by_http()
        return self.answer is not None

    def letter_is_kept(self) -> bool:
        """Whether what was sent beside the job, and nobody can use, is a dead letter."""
        query = text("SELECT errors FROM dead_letters WHERE message_id = :id")
        with self.matrix.database.begin() as tx:
            found = list(tx.scalars(query, {"id": self._poison}))
        assert all("body" in errors for errors in found)
        return bool(found)

    @property
    def _poison(self) -> str:
        return f"{self.key} poison"

    def _by_http(self) -> UUID | None:
        fields: dict[str, Any] = {"image": "busybox:1.36", "ports": [], "command": list(RUN)}
        fields |= {"key": self.key, **self.more}
        try:
            answer = httpx.post(f"{self.matrix.api_url}/jobs", json=fields, timeout=5)
        except httpx.TransportError:
            return None
        assert answer.status_code in (200, 201), answer.text
        return UUID(answer.json()["id"])

    def _by_message(self) -> UUID | None:
        if not self._sent:
            # Confirmed, and sent once: from here the broker and the scheduler answer for it.
            fields = {"image": "busybox:1.36", "ports": [], "command": list(RUN)}
            parameters = pika.URLParameters(self.matrix.broker_url)
            connection = pika.BlockingConnection(parameters)
            channel = connection.channel()
            channel.confirm_delivery()
            properties = pika.BasicProperties(
                message_id=self.key, delivery_mode=2, reply_to="nobody"
            )
            body = json.dumps({"type": "job.submit", "v": 1, "job": fields}).encode()
            poison = pika.BasicProperties(message_id=self._poison, delivery_mode=2)
            channel.basic_publish(COMMANDS, "job.submit", b"no JSON", poison, mandatory=True)
            channel.basic_publish(COMMANDS, "job.submit", body, properties, mandatory=True)
            connection.close()
            self._sent = True
        with self.matrix.database.begin() as tx:
            found = tx.scalar(text("SELECT id FROM jobs WHERE key = :key"), {"key": self.key})
        return found if found is None else UUID(str(found))


def _launched(url: str, job_id: UUID, instance_id: str | None = None) -> list[Any]:
    """The job's instances by their tags; that one too, which has none yet where a group was launched."""
    found: dict[str, Any] = {}
    for name, value in ((f"tag:{JOB_TAG}", str(job_id)), ("instance-id", instance_id)):
        if value:
            filters = [{"Name": name, "Values": [value]}]
            pages = _client(url).describe_instances(Filters=filters)["Reservations"]
            found |= {one["InstanceId"]: one for page in pages for one in page["Instances"]}
    return list(found.values())


def _end_its_machine(url: str, job_id: UUID) -> bool:
    """Terminate the job's machine once its console tells how it ended; tell whether it did."""
    for instance in _launched(url, job_id):
        instance_id = instance["InstanceId"]
        if "atemporal-exit" in _client(url).get_console_output(InstanceId=instance_id).get(
            "Output", ""
        ):
            _client(url).terminate_instances(InstanceIds=[instance_id])
            return True
    return False


_clients: dict[str, Any] = {}


def _client(url: str) -> Any:
    if url not in _clients:
        _clients[url] = ec2(url)
    return _clients[url]


__all__ = ["SCENARIOS", "SERVICES", "Matrix", "Scenario"]
