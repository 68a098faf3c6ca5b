"""The examples for other teams do what they say: foreign AMQP clients against RabbitMQ and the daemons.

Each program in `docs/examples` runs as a reader would run it, as a process of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pika
import pytest
from jsonschema import Draft202012Validator, FormatChecker
from pika.exceptions import ChannelClosedByBroker, UnroutableError

from atemporal.messages import COMMANDS, EVENTS, JobSubmit
from tests.e2e.system import System
from tests.provision import GO_PATH, ROOT
from tests.servers.child import Child
from tests.servers.ports import free_port
from tests.servers.rabbitmq import RabbitMQ

EXAMPLES = ROOT / "docs" / "examples"
SCHEMAS = ROOT / "docs" / "schemas"
CLIENTS = ("python", "node", "go", "shell")
# The tools of the shell have a connection each, and a direct reply comes to the asker's own.
ASKING = [(client, direct) for client in CLIENTS for direct in (False, True)][:-1]
JOB = {"image": "busybox:1.36", "command": ["true"], "ports": [], "delay_s": 86_400}

Command = Callable[[str, str], list[str]]
Ask = Callable[..., "subprocess.Popen[str]"]


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


@pytest.fixture
def ask(env: dict[str, str], command: Command, tmp_path: Path) -> Ask:
    """Start a client's `submit`, with a key and the fields of a job."""
    number = count()

    def start(client: str, key: str, direct: bool = False, **fields: Any) -> subprocess.Popen[str]:
        job = tmp_path / f"{client} {next(number)}.json"
        own_key = {"key": key} if client == "shell" else {}
        job.write_text(json.dumps({**JOB, **fields, **own_key}))
        argv = [*command(client, "submit"), *([] if own_key else [key])]
        with job.open() as stdin:
            return subprocess.Popen(
                [*argv, *(["--direct"] if direct else [])],
                env=env,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )

    return start


def valid(schema: str, value: Any) -> None:
    """Fail when the value is not what the published schema says."""
    schema_itself = json.loads((SCHEMAS / schema).read_text())
    Draft202012Validator(schema_itself, format_checker=FormatChecker()).validate(value)


@pytest.mark.parametrize(
    ("client", "direct"), ASKING, ids=lambda one: one if isinstance(one, str) else "direct" * one
)
def test_a_client_hears_what_became_of_its_submit(
    system: System, ask: Ask, client: str, direct: bool
) -> None:
    key = f"{client}-{direct}"

    def submit(**fields: Any) -> tuple[int, dict[str, Any]]:
        """Its exit status, and the reply that it printed."""
        asking = ask(client, key, direct, **fields)
        printed, errors = asking.communicate(timeout=60)
        assert printed, f"{errors}\n{system.logs()}"
        reply = json.loads(printed)
        valid("job.submit.reply.v1.json", reply)
        return asking.returncode, reply

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


def test_a_schedule_is_made_changed_and_deleted_from_python(
    system: System, env: dict[str, str]
) -> None:
    job = {name: value for name, value in JOB.items() if name != "delay_s"}
    nightly = {"name": "nightly", "cron": "30 2 * * *", "zone": "Europe/Berlin", "job": job}

    def change(
        key: str, serial: int, *words: str, given: object = None
    ) -> tuple[int, dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / "python" / "schedule.py"), key, *words],
            env={**env, "SERIAL": str(serial)},
            input=json.dumps(given),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout, f"{done.stderr}\n{system.logs()}"
        reply = json.loads(done.stdout)
        valid("schedule.reply.v1.json", reply)
        return done.returncode, reply

    for status in ("accepted", "duplicate"):
        code, reply = change("plan-1", 1, given=nightly)
        assert (code, reply["status"], reply["version"]) == (0, status, 1)
    assert change("plan-3", 3, "pause", "nightly")[1]["paused"] is True
    assert change("plan-2", 2, "resume", "nightly")[1]["status"] == "outdated"
    code, reply = change("plan-4", 4, given={**nightly, "cron": "5/15 * * * *"})
    assert (code, reply["status"], list(reply["errors"])) == (1, "rejected", ["cron"])
    assert change("plan-5", 5, "delete", "nightly")[1]["status"] == "accepted"


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


@pytest.fixture
def channel(broker_url: str) -> Iterator[Any]:
    """A channel of the tests' own."""
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    yield connection.channel()
    if connection.is_open:
        connection.close()


def _submits(channel: Any) -> int:
    """How many submits nobody has read."""
    waiting: int = channel.queue_declare(JobSubmit.queue, passive=True).method.message_count
    return waiting


def _wait_for_submits(system: System, channel: Any, least: int) -> None:
    system.wait(f"{least} submits are there", lambda: _submits(channel) >= least)


def _is_there(broker_url: str, queue: str) -> bool:
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    try:
        connection.channel().queue_declare(queue, passive=True)
    except ChannelClosedByBroker:
        return False
    finally:
        connection.close()
    return True


def _reply_queue(asking: subprocess.Popen[str]) -> str:
    """That of the shell's program."""
    return f"replies.{socket.gethostname()}.{asking.pid}"


def test_who_gets_no_reply_ends_with_2_and_may_ask_again(
    system: System, ask: Ask, broker_url: str
) -> None:
    system.kill("scheduler")
    started = {
        (client, direct): ask(client, f"{client} {direct}", direct) for client, direct in ASKING
    }
    for asking in started.values():
        printed, errors = asking.communicate(timeout=60)
        assert (asking.returncode, printed) == (2, ""), errors
        assert "no reply: send it again, with the same key" in errors
    assert not _is_there(broker_url, _reply_queue(started["shell", False]))
    system.start("scheduler")
    for client, direct in started:
        again = ask(client, f"{client} {direct}", direct)
        printed, errors = again.communicate(timeout=60)
        assert (again.returncode, json.loads(printed)["status"]) == (0, "duplicate"), errors


def test_the_reply_queue_of_the_shell_is_deleted_when_a_signal_ends_it(
    system: System, ask: Ask, channel: Any, broker_url: str
) -> None:
    system.kill("scheduler")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        before = _submits(channel)
        asking = ask("shell", f"by {number}")
        _wait_for_submits(system, channel, before + 1)
        assert _is_there(broker_url, _reply_queue(asking))
        os.killpg(asking.pid, number)
        asking.communicate(timeout=20)
        assert asking.returncode == 2
        assert not _is_there(broker_url, _reply_queue(asking))


def test_when_the_broker_stops_who_waits_ends_with_2_and_so_does_who_listens(
    system: System,
    ask: Ask,
    listeners: dict[str, Listener],
    channel: Any,
    rabbitmq_server: RabbitMQ,
) -> None:
    system.kill("scheduler")
    before = _submits(channel)
    started = [
        (client, ask(client, f"lost {client} {direct}", direct)) for client, direct in ASKING
    ]
    _wait_for_submits(system, channel, before + len(started))
    channel.connection.close()
    rabbitmq_server.stop()
    try:
        for client, asking in started:
            printed, errors = asking.communicate(timeout=60)
            assert (asking.returncode, printed) == (2, ""), errors
            assert "send it again, with the same key" in errors
            # It is told at once, and not after the longest wait.
            assert client == "shell" or "no reply" not in errors
        for client, listener in listeners.items():
            status = listener.child.wait()
            assert status == 2 or (client == "shell" and status), listener.child.output()
    finally:
        rabbitmq_server.start()


def test_a_submit_that_no_queue_takes_ends_with_2(system: System, ask: Ask, channel: Any) -> None:
    binding = (JobSubmit.queue, COMMANDS, JobSubmit.type_name())
    channel.queue_unbind(*binding)
    try:
        # The shell's tools can not ask for a message back: theirs gets no reply.
        for client in ("python", "node", "go"):
            asking = ask(client, f"nowhere {client}")
            printed, errors = asking.communicate(timeout=20)
            assert (asking.returncode, printed) == (2, "")
            assert "no queue for it" in errors
    finally:
        channel.queue_bind(*binding)


def test_a_listener_takes_a_hundred_at_a_time(
    listeners: dict[str, Listener], rabbitmq_server: RabbitMQ, broker_url: str
) -> None:
    vhost = broker_url.rpartition("/")[2]
    listed = rabbitmq_server.ctl("list_consumers", "-p", vhost, "queue_name", "prefetch_count")
    taken = dict(line.split() for line in listed.splitlines() if line.startswith("heard."))
    assert taken == {f"heard.{client}": "100" for client in listeners if client != "shell"}


def test_a_listener_whose_queue_is_deleted_ends_with_2(
    listeners: dict[str, Listener], channel: Any
) -> None:
    for client in ("python", "node", "go"):
        channel.queue_delete(f"heard.{client}")
        assert listeners[client].child.wait() == 2
        assert "the queue was deleted" in listeners[client].child.output()


def _run(env: Mapping[str, str], *argv: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *map(str, argv)],
        env={**env, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_an_api_that_restarts_is_no_failed_job(system: System, env: dict[str, str]) -> None:
    system.kill("api")
    script = EXAMPLES / "python" / "run.py"
    running = _run(env, script, "patient", "busybox:1.36", "sh", "-c", "echo hello; exit 7")
    assert running.stderr is not None
    assert running.stderr.readline().startswith("again in 5 s:")
    system.start("api")
    while not (line := running.stderr.readline()).startswith("submitted"):
        assert line.startswith("again in 5 s:")
    system.kill("api")
    assert running.stderr.readline().startswith("again in 5 s:")
    system.start("api")
    printed, errors = running.communicate(timeout=100)
    assert (running.returncode, printed) == (7, "hello\n"), errors


def test_the_patience_with_an_api_has_an_end(env: dict[str, str], tmp_path: Path) -> None:
    text = (EXAMPLES / "python" / "run.py").read_text()
    assert "PATIENCE_S = 300" in text
    impatient = tmp_path / "run.py"
    impatient.write_text(text.replace("PATIENCE_S = 300", "PATIENCE_S = 0"))
    nowhere = {**env, "ATEMPORAL_API_URL": f"http://127.0.0.1:{free_port()}"}
    running = _run(nowhere, impatient, "key", "busybox:1.36")
    _, errors = running.communicate(timeout=60)
    assert (running.returncode, errors.split(":")[0]) == (2, "Unavailable")
