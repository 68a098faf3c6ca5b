"""The machine's `docker`: the command line, the pass-through, the stand-in without an engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from atemporal.twin import processes
from atemporal.twin.containers import command_line, passthrough


class Docker:
    """The stand-in, as a machine's commands call it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "dev").mkdir(parents=True)
        (root / "dev/console").touch()

    def __call__(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-S", "-m", "atemporal.twin.containers.docker", str(self.root)]
        package_parent = Path(passthrough.__file__).parents[3]
        done = subprocess.run(
            [*command, *words],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(package_parent)},
        )
        assert done.returncode == code, done.stderr
        return done

    def state(self, name: str) -> dict[str, object]:
        state: dict[str, object] = json.loads(
            self("inspect", "-f", "{{json .State}}", name).stdout
        )
        return state


@pytest.fixture
def docker(tmp_path: Path) -> Docker:
    return Docker(tmp_path / "root")


def test_words_behind_the_image_are_the_jobs() -> None:
    line = command_line.parse(["create", "--name", "a", "-e", "A=1", "-t", "image", "-e", "B"])

    assert line.options == (("--name", "a"), ("--env", "A=1"), ("--tty", "true"))
    assert line.operands == ("image", "-e", "B")


def test_machines_that_share_an_engine_are_kept_apart() -> None:
    words = [
        "create",
        "--name",
        "job",
        "-p",
        "80:8080/tcp",
        "-e",
        "A=--name",
        "image",
        "--name",
        "x",
    ]

    assert passthrough.rewrite(words, "i-1") == [
        *("create", "--name=i-1-job", "--publish=127.0.0.1::8080/tcp", "--env=A=--name"),
        *("--label=atemporal.twin.machine=i-1", "image", "--name", "x"),
    ]
    assert passthrough.rewrite(["stop", "-t", "9", "job"], "i-1") == [
        "stop",
        "--time=9",
        "i-1-job",
    ]
    assert passthrough.rewrite(["info"], "i-1") == ["info"]


def test_the_settings_of_its_client_stand_before_the_verb(docker: Docker) -> None:
    pulled = docker("--config", "/run/atemporal/docker", "pull", "--quiet", "example.org/a")
    assert pulled.stdout == "example.org/a\n"
    words = ["--config", "/run/atemporal/docker", "pull", "example.org/a"]
    assert passthrough.rewrite(words, "i-1") == words


def test_a_command_runs_with_exactly_its_environment(docker: Docker) -> None:
    value = "line 1\nline 2 \"quoted\" $HOME %s 'é'"
    show = (
        "import os, sys; print(repr(os.environ['V'])); print(sorted(os.environ), file=sys.stderr)"
    )
    docker("create", "--name", "a", "--env", f"V={value}", "image", sys.executable, "-c", show)

    docker("start", "a")

    assert docker("wait", "a").stdout == "0\n"
    logs = docker("logs", "a")
    assert logs.stdout == f"{value!r}\n"
    assert {"PATH", "V"} <= set(eval(logs.stderr)) <= {"PATH", "V", "LC_CTYPE"}
    assert "image is not run" not in logs.stdout + logs.stderr
    assert "the image image is not run" in (docker.root / "dev/console").read_text()


def test_an_entrypoint_stands_before_the_command_and_what_has_no_effect_is_told(
    docker: Docker,
) -> None:
    docker("create", "--name", "a", "--user=7", "--entrypoint=echo", "image", "-n", "hello")

    docker("start", "a")
    docker("wait", "a")

    assert docker("logs", "a").stdout == "hello"
    assert "docker: --user=7 has no effect here" in (docker.root / "dev/console").read_text()


def test_an_exit_code_is_kept(docker: Docker) -> None:
    docker("create", "--name", "a", "image", "sh", "-c", "exit 7")

    docker("start", "--attach", "a", code=7)

    state = docker.state("a")
    assert (state["Status"], state["ExitCode"], state["OOMKilled"]) == ("exited", 7, False)
    assert str(state["StartedAt"]) <= str(state["FinishedAt"])


def test_a_command_that_is_not_there_never_started(docker: Docker) -> None:
    docker("create", "--name", "a", "image", "/no/such/program")

    assert "/no/such/program" in docker("start", "a", code=1).stderr

    state = docker.state("a")
    assert (state["ExitCode"], str(state["StartedAt"])[:4]) == (127, "0001")


def test_stop_ends_what_ignores_it_and_all_that_it_started(docker: Docker) -> None:
    nested = "trap '' TERM; setsid sleep 1000 & echo $!; while :; do sleep 1000; done"
    docker("create", "--name", "a", "image", "sh", "-c", nested)
    docker("start", "a")

    docker("stop", "-t", "0.2", "a")

    assert docker.state("a")["ExitCode"] == 137
    child = docker("logs", "a").stdout.strip()
    assert processes.start_time(int(child)) is None


def test_the_last_lines_of_a_log(docker: Docker) -> None:
    docker("create", "--name", "a", "--log-opt", "max-size=1k", "image", "seq", "1000")
    docker("start", "-a", "a")

    assert docker("logs", "--tail", "3", "a").stdout == "998\n999\n1000\n"
    size = sum(path.stat().st_size for path in docker.root.glob("var/lib/docker/a/log*"))
    assert size < 1200


def test_what_only_the_image_would_know_is_refused(docker: Docker) -> None:
    assert "give the job a command" in docker("create", "--name", "a", "image", code=125).stderr
    assert "No such container" in docker("inspect", "a", code=1).stderr
    assert "not modelled" in docker("build", ".", code=125).stderr
