"""The examples for other teams do what they say: foreign AMQP clients against RabbitMQ and the daemons.

Each program in `docs/examples` runs as a reader would run it, as a process of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pika
import pytest
from jsonschema import Draft202012Validator, FormatChecker
from pika.exceptions import UnroutableError

from atemporal.messages import COMMANDS, EVENTS
from tests.e2e.system import System
from tests.provision import GO_PATH, ROOT
from tests.servers.child import Child

EXAMPLES = ROOT / "docs" / "examples"
SCHEMAS = ROOT / "docs" / "schemas"
CLIENTS = ("python", "node", "go", "shell")
# The tools of the shell have a connection each, and a direct reply comes to the asker's own.
ASKING = [(client, direct) for client in CLIENTS for direct in (False, True)][:-1]
JOB = {"image": "busybox:1.36", "command": ["true"], "ports": [], "delay_s": 86_400}

Command = Callable[[str, str], list[str]]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """How a client's program is called."""
    built = tmp_path_factory.mktemp("go")
    # Debian's packages are outside of modules; those of Go itself need no C.
    env = {**os.environ, "GO111MODULE": "off", "GOPATH": GO_PATH, "CGO_ENABLED": "0"}
    subprocess.run(
        [_program("go"), "build", "-o", built, "./submit", "./listen"],
        cwd=EXAMPLES / "go",
        env=env,
        check=True,
    )
    programs: Mapping[str, Callable[[str], list[str]]] = {
        "python": lambda name: [sys.executable, str(EXAMPLES / "python" / f"{name}.py")],
        "node": lambda name: [_program("node"), str(EXAMPLES / "node" / f"{name}.js")],
        "go": lambda name: [str(built / name)],
        "shell": lambda name: [str(EXAMPLES / "shell" / f"{name}.sh")],
    }
    return lambda client, name: programs[client](name)


def _program(name: str) -> str:
    found = shutil.which(name)
    assert found, f"{name} is not there: run python -m tests.provision"
    return found


@pytest.fixture
def env(system: System, broker_url: str) -> dict[str, str]:
    """What the programs need to know of the installation."""
    return {**os.environ, "AMQP_URL": broker_url, "ATEMPORAL_API_URL": system.api_url}


def valid(schema: str, value: Any) -> None:
    """Fail when the value is not what the published schema says."""
    schema_itself = json.loads((SCHEMAS / schema).read_text())
    Draft202012Validator(schema_itself, format_checker=FormatChecker()).validate(value)


@pytest.mark.parametrize(
    ("client", "direct"), ASKING, ids=lambda one: one if isinstance(one, str) else "direct" * one
)
def test_a_client_hears_what_became_of_its_submit(
    system: System, env: dict[str, str], command: Command, client: str, direct: bool
) -> None:
    key = f"{client}-{direct}"

    def submit(**fields: Any) -> tuple[int, dict[str, Any]]:
        """Its exit status, and the reply that it printed."""
        job = {**JOB, **fields, **({"key": key} if client == "shell" else {})}
        argv = [*command(client, "submit"), *([] if client == "shell" else [key])]
        done = subprocess.run(
            [*argv, *(["--direct"] if direct else [])],
            input=json.dumps(job),
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout, f"{done.stderr}\n{system.logs()}"
        reply = json.loads(done.stdout)
        valid("job.submit.reply.v1.json", reply)
        return done.returncode, reply

    status, accepted = submit()
    assert (status, accepted["status"]) == (0, "accepted")
    assert system.job(UUID(accepted["id"])).spec.key == key

    status, duplicate = submit()
    assert (status, duplicate["status"]) == (0, "duplicate")
    assert duplicate["id"] == accepted["id"]

    status, rejected = submit(image="No Image")
    assert (status, rejected["status"]) == (1, "rejected")
    assert list(rejected["errors"]) == ["image"]

    status, rejected = submit(image="nginx")
    assert (status, rejected["status"], rejected["id"]) == (1, "rejected", accepted["id"])
    assert list(rejected["errors"]) == ["key"]


def test_the_tools_of_the_shell_can_not_have_a_direct_reply(env: dict[str, str]) -> None:
    options = ["-e", COMMANDS, "-r", "job.submit", "-t", "amq.rabbitmq.reply-to", "-b", "{}"]
    done = subprocess.run(
        [_program("amqp-publish"), "-u", env["AMQP_URL"], *options],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "fast reply consumer does not exist" in done.stderr


class Listener:
    """A client's `listen` program, and what it has printed."""

    def __init__(self, argv: list[str], env: dict[str, str], folder: Path) -> None:
        """Start it."""
        self._output = folder / "output"
        self._argv, self._env = argv, env
        self.start()

    def start(self) -> None:
        """Start it, again."""
        # Its errors and what it hears, together.
        self.child = Child(self._argv, log=self._output, env=self._env)

    def says(self, text: str) -> bool:
        """Whether it has printed the text, since it was first started."""
        return text in self._output.read_text()

    def has_heard(self, job_id: UUID) -> bool:
        """Whether it has printed an event of the job."""
        return bool(self.heard(job_id))

    def heard(self, job_id: UUID) -> list[dict[str, Any]]:
        """The events of a job, as it printed them."""
        lines = self._output.read_text().splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        return [event for event in events if event["job_id"] == str(job_id)]


@pytest.fixture
def listeners(
    system: System, broker_url: str, env: dict[str, str], command: Command, tmp_path: Path
) -> Iterator[dict[str, Listener]]:
    """All clients, each bound to the events."""
    started: dict[str, Listener] = {}
    try:
        # The shell's first, because it does not say when it is bound.
        for client in reversed(CLIENTS):
            folder = tmp_path / client
            folder.mkdir()
            argv = [
                *command(client, "listen"),
                *([] if client == "shell" else [f"heard.{client}"]),
            ]
            started[client] = Listener(argv, env, folder)
            if client == "shell":
                started[client].child.wait_ready(lambda: _anybody_listens(broker_url))
        for client, listener in started.items():
            if client != "shell":
                listener.child.wait_ready(partial(listener.says, "listening"))
        yield started
    finally:
        for listener in started.values():
            listener.child.end(signal.SIGTERM)


def _anybody_listens(broker_url: str) -> bool:
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish(EVENTS, "job.finished.probe", b"probe\n", mandatory=True)
    except UnroutableError:
        return False
    finally:
        connection.close()
    return True


def test_every_client_hears_of_the_end_of_a_job(
    system: System, listeners: dict[str, Listener]
) -> None:
    job_id = system.submit("sh", "-c", "exit 7", key="mission", labels={"team": "mi6"})
    for client, listener in listeners.items():
        system.wait(f"{client} hears it", partial(listener.has_heard, job_id))
        event = listener.heard(job_id)[0]
        valid("event.v1.json", event)
        assert event["type"] == "job.finished.failed"
        assert (event["outcome"], event["exit_code"]) == ("failed", 7)
        assert (event["key"], event["labels"]) == ("mission", {"team": "mi6"})


def test_a_queue_keeps_what_comes_while_its_listener_is_away(
    system: System, listeners: dict[str, Listener]
) -> None:
    with_queue = {name: one for name, one in listeners.items() if name != "shell"}
    for listener in with_queue.values():
        listener.child.end(signal.SIGTERM)
    job_id = system.submit("true", delay_s=86_400)
    httpx.delete(f"{system.api_url}/jobs/{job_id}").raise_for_status()
    # It has gone out to everybody when one has it.
    system.wait("the shell hears it", partial(listeners["shell"].has_heard, job_id))
    for client, listener in with_queue.items():
        assert listener.heard(job_id) == []
        listener.start()
        system.wait(f"{client} hears it", partial(listener.has_heard, job_id))
        event = listener.heard(job_id)[0]
        assert event["type"] == "job.finished.cancelled"


def test_a_job_is_run_over_http_by_the_client(system: System, env: dict[str, str]) -> None:
    def run(key: str, *argv: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, str(EXAMPLES / "python" / "run.py"), key, *argv]
        return subprocess.run(
            program,
            env={**env, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=100,
        )

    jobs = set()
    for what in ("submitted", "was there"):
        done = run("by-http", "busybox:1.36", "sh", "-c", "echo hello; exit 7")
        assert (done.returncode, done.stdout) == (7, "hello\n"), done.stderr
        first, last = done.stderr.splitlines()
        assert first.startswith(what)
        assert last == "failed exit_nonzero"
        jobs.add(first.split()[-1])
    assert len(jobs) == 1
    refused = run("refused", "No Image")
    assert refused.returncode == 1
    assert "Invalid: image:" in refused.stderr
