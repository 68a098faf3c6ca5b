"""Local mode as a user has it: `demo` and `up` as processes, on directories of their own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from atemporal.errors import Refused
from atemporal.local.demo import LETTER
from atemporal.local.home import Home
from atemporal.local.stack import NO_ENGINE, Stack
from atemporal.twin.containers.engine import PROCESS, Engine
from services.api.server import ApiServer
from tests.servers.ports import free_port

CODE = "from atemporal.cli import main; main(prog_name='atemporal')"
ATEMPORAL = (sys.executable, "-W", "error::ResourceWarning", "-c", CODE)
# What a shell does with the file that `up` writes.
SOURCED = ("sh", "-c", '. "$0" && exec "$@"')


def without_account() -> dict[str, str]:
    """The environment of somebody who has nothing: no account, no server."""
    return {n: v for n, v in os.environ.items() if not n.startswith(("AWS_", "ATEMPORAL_"))}


def processes_with(path: Path) -> list[str]:
    """The command lines of the processes that have to do with a directory."""
    asked = subprocess.run(["ps", "-axww", "-o", "args="], capture_output=True, text=True)
    return [line for line in asked.stdout.splitlines() if str(path) in line]


@contextmanager
def started(*words: str, env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*ATEMPORAL, *words],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_demo_runs_three_jobs_and_leaves_nothing(tmp_path: Path) -> None:
    # A Postgres that somebody's shell names is not the demo's business.
    env = without_account() | {"ATEMPORAL_DATABASE_URL": "postgresql://u@127.0.0.1:1/none"}
    done = subprocess.run(
        [*ATEMPORAL, "demo", "-o", "json"],
        env={**env, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["instances_launched"], result["instances_left"]) == (3, 0)
    environment, failure, later = result["jobs"]
    assert set(later) == {
        *("id", "image", "state", "outcome", "exit_code", "log_tail", "instances"),
    }
    ends = [(job["state"], job["outcome"], job["exit_code"]) for job in result["jobs"]]
    assert ends == [
        ("finished", "succeeded", 0),
        ("finished", "failed", 7),
        ("finished", "succeeded", 0),
    ]
    assert f"LETTER={LETTER}\n" in environment["log_tail"]
    assert "on purpose" in failure["log_tail"]
    assert all(len(job["instances"]) == 1 for job in result["jobs"])
    assert "job.finished.failed" in done.stderr
    assert "processes of the host" in done.stderr or "containers by" in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert processes_with(tmp_path) == []


def test_an_interrupted_demo_leaves_nothing(tmp_path: Path) -> None:
    env = without_account() | {"TMPDIR": str(tmp_path)}
    with started("demo", env=env) as demo:
        assert demo.stderr is not None
        for line in demo.stderr:
            if "attempt.warming" in line:
                break
        demo.send_signal(signal.SIGTERM)
        _, text = demo.communicate(timeout=60)
        assert demo.returncode == 130, text
    assert "interrupted" in text
    assert list(tmp_path.iterdir()) == []
    assert processes_with(tmp_path) == []


class Installation:
    """A directory on which `up` runs now and then."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.env = without_account()
        self.logs: list[str] = []

    @contextmanager
    def up(self, *words: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
        """Run `up` for the block; it ends with what the test sent, or is killed."""
        log = self.directory.with_name(f"{self.directory.name}.log{len(self.logs)}")
        self.logs.append(str(log))
        words = ("-o", "json", "up", "--dir", str(self.directory), "--engine", "process", *words)
        with (
            log.open("w") as output,
            subprocess.Popen(
                [*ATEMPORAL, *words],
                env=self.env,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                start_new_session=True,
            ) as process,
        ):
            try:
                assert process.stdout is not None
                lines = []
                while (line := process.stdout.readline()) not in ("}\n", ""):
                    lines.append(line)
                assert line, log.read_text()
                yield process, json.loads("".join([*lines, line]))
            finally:
                process.kill()

    def stop(self, process: subprocess.Popen[str]) -> str:
        """Press Ctrl-C, or what a supervisor does; return what was said."""
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
        return Path(self.logs[-1]).read_text()

    def cli(self, *words: str, code: int = 0) -> str:
        """Call the CLI in a shell that has read the installation's `env`."""
        done = subprocess.run(
            [*SOURCED, str(self.directory / "env"), *ATEMPORAL, *words],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def run(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Call the CLI in a shell that knows nothing of the installation."""
        done = subprocess.run(
            [*ATEMPORAL, *words], env=self.env, capture_output=True, text=True, timeout=90
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def job(self, job_id: str) -> Any:
        return json.loads(self.cli("-o", "json", "show", job_id))

    def await_closed(self, job_id: str) -> None:
        """Return when EC2 has confirmed that all instances of the job are gone."""
        until(lambda: {one["state"] for one in self.job(job_id)["instances"]} == {"closed"})


def test_a_refused_up_leaves_no_new_directory(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = subprocess.run(
            [*ATEMPORAL, "up", "--dir", str(tmp_path / "new" / "home"), "--port", port],
            env=without_account(),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert refused.returncode == 1
    assert f"port {port}" in refused.stderr
    assert list(tmp_path.iterdir()) == []
    assert processes_with(tmp_path) == []


def test_the_env_file_is_there_when_the_api_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = []

    class Watched(ApiServer):
        def start(self) -> None:
            there.append((tmp_path / "env").exists())
            raise Refused("far enough")

    # What local mode writes into its own process goes back with the patch.
    for name in [name for name in os.environ if name.startswith(("AWS_", "ATEMPORAL_"))]:
        monkeypatch.delenv(name)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.setenv(name, "local")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setattr("atemporal.local.stack.ApiServer", Watched)
    home = Home(tmp_path)
    try:
        with pytest.raises(Refused, match="far enough"):
            Stack(home, engine=Engine(PROCESS), durable=False).start()
    finally:
        home.close()
    assert there == [True]


def until(condition: Callable[[], bool]) -> None:
    """Return when it holds; it is about another process, which does not tell."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def submit_by_http(url: str, **fields: Any) -> str:
    done = subprocess.run(
        ["curl", "-sf", "-H", "Content-Type: application/json", "-d", json.dumps(fields), url],
        capture_output=True,
        text=True,
        check=True,
    )
    return str(json.loads(done.stdout)["id"])


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path / "home")
    yield made
    assert processes_with(made.directory) == []


def test_up_takes_jobs_and_its_state_survives(installation: Installation, tmp_path: Path) -> None:
    signal = tmp_path / "signal"
    wait_for_it = ["sh", "-c", f"until test -e {signal}; do sleep 0.1; done; echo through; exit 3"]
    with installation.up("--port", str(free_port())) as (process, announced):
        by_http = submit_by_http(
            f"{announced['api']}/jobs", image="busybox", command=["sh", "-c", "echo by $HOW"],
            env={"HOW": "http"}
        )  # fmt: skip
        assert "processes of the host" in announced["runs_on"]
        by_cli = installation.cli("submit", "busybox", "--", *wait_for_it).strip()
        # What succeeds here proves nothing about its image, and every reader is told.
        environment = {"ATEMPORAL_API_URL": announced["api"]}
        shown = subprocess.run(
            [*ATEMPORAL, "show", by_cli], env=installation.env | environment, capture_output=True
        )
        assert NO_ENGINE in shown.stderr.decode()
        on_arm = installation.cli("submit", "busybox", "--instance-type", "m7g.large", "true")
        # Its machine boots an image for such processors.
        installation.cli("wait", on_arm.strip())
        installation.await_closed(on_arm.strip())
        installation.cli("wait", by_http)
        assert installation.cli("logs", by_http) == "by http\n"

        again = ("up", "--dir", str(installation.directory))
        refused = subprocess.run(
            [*ATEMPORAL, *again], env=installation.env, capture_output=True, text=True, timeout=60
        )
        assert refused.returncode == 5
        assert f"in use by process {process.pid}" in refused.stderr

        until(lambda: installation.job(by_cli)["state"] == "running")
        installation.await_closed(by_http)
        text = installation.stop(process)
    assert "1 machine runs on" in text
    assert any("atemporal.twin.machine" in line for line in processes_with(installation.directory))

    # The job goes on and may even end while nothing else is there.
    with installation.up() as (process, announced_again):
        assert announced_again == announced
        signal.touch()
        installation.cli("wait", by_cli, code=3)
        assert installation.cli("logs", by_cli) == "through\n"
        job = installation.job(by_cli)
        assert len(job["instances"]) == 1
        assert installation.job(by_http)["outcome"] == "succeeded"
        installation.await_closed(by_cli)
        states = {
            one["state"]
            for one in json.loads(installation.cli("-o", "json", "instances", "--all"))
        }
        assert states == {"terminated"}
        installation.stop(process)


def test_a_job_that_ends_while_nothing_is_up_is_known_afterwards(
    installation: Installation, tmp_path: Path
) -> None:
    signal, passed = tmp_path / "signal", tmp_path / "passed"
    script = f"until test -e {signal}; do sleep 0.1; done; touch {passed}; exit 9"
    with installation.up() as (process, _):
        job_id = installation.cli("submit", "busybox", "--", "sh", "-c", script).strip()
        until(lambda: installation.job(job_id)["state"] == "running")
        installation.stop(process)
    signal.touch()
    until(passed.exists)
    with installation.up() as (process, _):
        installation.cli("wait", job_id, code=9)
        installation.await_closed(job_id)
        installation.stop(process)


def test_down_ends_the_machines_that_up_left(installation: Installation) -> None:
    down = ("down", "--dir", str(installation.directory), "-o", "json")
    assert "no installation" in installation.run(*down, code=4).stderr
    with installation.up() as (process, _):
        job_id = installation.cli("submit", "busybox", "--", "sleep", "600").strip()
        until(lambda: installation.job(job_id)["state"] == "running")
        assert "in use by process" in installation.run(*down, code=5).stderr
        assert "atemporal down --dir" in installation.stop(process)
    assert json.loads(installation.run(*down).stdout)["machines_ended"] == 1
    assert processes_with(installation.directory) == []
    assert json.loads(installation.run(*down).stdout)["machines_ended"] == 0


def test_an_up_elsewhere_is_not_joined_and_what_is_used_is_said(
    installation: Installation, tmp_path: Path
) -> None:
    with installation.up() as (process, _):
        other = Installation(tmp_path / "other")
        for line in (installation.directory / "env").read_text().splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            other.env[name] = value
        with other.up() as (second, announced):
            assert announced["from_environment"] == {}
            job_id = other.cli("submit", "busybox", "--", "true").strip()
            other.cli("wait", job_id)
            other.await_closed(job_id)
            assert json.loads(installation.cli("list", "-o", "json"))["total"] == 0
            text = other.stop(second)
        assert "ATEMPORAL_DATABASE_URL" in text
        assert f"belong to {installation.directory}" in text

        # Named by hand it is joined, and that is said.
        third = Installation(tmp_path / "third")
        url = other.env["ATEMPORAL_DATABASE_URL"]
        third.env["ATEMPORAL_DATABASE_URL"] = url
        with third.up() as (joined, announced):
            shown = announced["from_environment"]["ATEMPORAL_DATABASE_URL"]
            assert shown.rpartition("@")[2] == url.rpartition("@")[2]
            assert "***" in shown
            third.stop(joined)
        installation.stop(process)


def test_what_a_killed_up_left_is_no_hindrance(installation: Installation) -> None:
    with installation.up() as (process, announced):
        env = (installation.directory / "env").read_text()
        process.send_signal(signal.SIGKILL)
        process.wait()
    # In a shell that has read the file of the first one, too.
    for line in env.splitlines():
        name, _, value = line.removeprefix("export ").partition("=")
        if name.startswith("ATEMPORAL_"):
            installation.env[name] = value
    with installation.up() as (process, announced_again):
        assert announced_again == announced
        assert (installation.directory / "env").read_text() == env
        job_id = installation.cli("submit", "busybox", "--", "true").strip()
        installation.cli("wait", job_id)
        installation.await_closed(job_id)
        installation.stop(process)
