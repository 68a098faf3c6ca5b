"""`docker` on a machine when the host has no container engine: the command as a process of the host.

Promise: a job gets what it asks of its container, except for the image, which is not run. This is
on the machine's console, never in the job's own log. A container without a command can not be
created: only the image would know what to run. What jobs need of docker's command line is here;
anything else fails with a message.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from atemporal.twin.containers import command_line
from atemporal.twin.containers.command_line import CommandLine
from atemporal.twin.containers.container import Container, Failure, now
from atemporal.twin.containers.monitor import Monitor, emit

_LOG_SIZES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}

_APPLIED = {"--name", "--env", "--entrypoint", "--log-driver", "--log-opt", "--publish", "--pull"}


class Docker:
    """The verbs."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def run(self, words: list[str]) -> int:
        """Carry out a command line; return docker's exit code."""
        line = command_line.parse(words)
        verb = getattr(self, f"_do_{line.verb.replace(' ', '_')}", None)
        if verb is None:
            raise Failure(f"docker {line.verb} is not modelled without a container engine", 125)
        code: int | None = verb(line)
        return code or 0

    def _do_info(self, _line: CommandLine) -> None:
        print("Server: a stand-in that runs a container's command as a process of this host")

    _do_version = _do_info

    def _do_pull(self, line: CommandLine) -> None:
        print(line.operands[-1])

    def _do_create(self, line: CommandLine) -> None:
        image, *argv = line.operands
        argv = [*line.all("--entrypoint")[-1:], *argv]
        if not argv:
            raise Failure(
                f"there is no container engine here, so the command of {image} is not known: "
                "give the job a command",
                125,
            )
        path = os.environ.get("PATH", "").split(":")
        own = str(self._root / "usr/bin")
        env = {"PATH": ":".join(entry for entry in path if entry != own)}
        for pair in line.all("--env"):
            name, equals, value = pair.partition("=")
            if equals or name in os.environ:
                env[name] = value if equals else os.environ[name]
        limit = 32 << 20
        for option in line.all("--log-opt"):
            match = re.fullmatch(r"max-size=([0-9]+)([bkmg]?)", option.lower())
            limit = int(match[1]) * _LOG_SIZES[match[2]] if match else limit
        name = line.last("--name", f"container-{os.getpid()}")
        Container(self._root, name).create(
            {"image": image, "argv": argv, "env": env, "log_limit": limit, "created": now()}
        )
        with (self._root / "dev/console").open("w") as console:
            console.write(
                f"docker: no container engine on this host: the image {image} is not run, its "
                "command runs as a process of the host, its ports are the host's own\n"
            )
            for option, value in line.options:
                if option not in _APPLIED:
                    console.write(f"docker: {option}={value} has no effect here\n")
        print(name)

    def _do_start(self, line: CommandLine) -> int:
        container = self._container(line)
        container.config  # noqa: B018 - raises if there is no such container
        if container.state["Running"]:
            return 0
        attach = line.has("--attach")
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            self._become_monitor(container, attach, writer)
        os.close(writer)
        os.waitpid(child, 0)
        with os.fdopen(reader) as report:
            why = report.readline()
        if why != "\n":
            raise Failure(f"Error response from daemon: {why.strip() or 'the monitor has died'}")
        if not attach:
            print(container.name)
            return 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda n, _frame: container.signal(signal.Signals(n)))
        container.wait()
        return int(container.state["ExitCode"])

    def _become_monitor(self, container: Container, attach: bool, report: int) -> None:
        """Fork once more, so that the container is not a child of the caller; never return."""
        os.setpgid(0, 0)
        if os.fork() == 0:
            nothing = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0,) if attach else (0, 1, 2):
                os.dup2(nothing, descriptor)
            with (container.directory / "lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                Monitor(container, attach).run(os.fdopen(report, "w"))
        os._exit(0)

    def _do_wait(self, line: CommandLine) -> None:
        container = self._container(line)
        container.config  # noqa: B018 - raises if there is no such container
        container.wait()
        print(container.state["ExitCode"])

    def _do_stop(self, line: CommandLine) -> None:
        container = self._container(line)
        if container.state["Running"]:
            container.signal(signal.SIGTERM)
            if not container.wait(float(line.last("--time", "10"))):
                container.signal(signal.SIGKILL)
                container.wait()
        print(container.name)

    def _do_kill(self, line: CommandLine) -> None:
        container = self._container(line)
        name = line.last("--signal", "KILL").removeprefix("SIG")
        container.signal(signal.Signals[f"SIG{name}"])
        print(container.name)

    def _do_inspect(self, line: CommandLine) -> None:
        container = self._container(line)
        config, state = container.config, container.state
        facts = {
            "Name": f"/{container.name}",
            "Created": config["created"],
            "LogPath": str(container.directory / "log"),
            "State": state,
            "Config": {"Image": config["image"], "Cmd": config["argv"]},
        }
        template = line.last("--format")
        print(_expand(template, facts) if template else json.dumps([facts], indent=4))

    def _do_logs(self, line: CommandLine) -> None:
        container = self._container(line)
        container.config  # noqa: B018 - raises if there is no such container
        if line.has("--follow"):
            for stream, chunk in container.follow():
                emit(stream, chunk)
            return
        frames = list(container.frames())
        tail = line.last("--tail", "all")
        if tail != "all":
            frames = frames[-int(tail) :] if int(tail) else []
        for stream, chunk in frames:
            emit(stream, chunk)

    def _do_rm(self, line: CommandLine) -> None:
        container = self._container(line)
        if container.state["Running"]:
            if not line.has("--force"):
                raise Failure(f"Error response from daemon: container {container.name} is running")
            container.signal(signal.SIGKILL)
            container.wait()
        shutil.rmtree(container.directory)
        print(container.name)

    def _container(self, line: CommandLine) -> Container:
        if len(line.operands) != 1:
            raise Failure(f"docker {line.verb} takes one container", 125)
        return Container(self._root, line.operands[0])


def _expand(template: str, facts: dict[str, Any]) -> str:
    """Fill in `{{.A.B}}` and `{{json .A.B}}`, the part of docker's templates that is modelled."""

    def value(match: re.Match[str]) -> str:
        found: Any = facts
        for name in match[2].strip(".").split("."):
            if not isinstance(found, dict) or name not in found:
                raise Failure(f"template: {match[0]} is not modelled")
            found = found[name]
        plain = isinstance(found, str) and not match[1]
        return found if plain else json.dumps(found)

    return re.sub(r"\{\{\s*(json\s+)?(\.[\w.]+)\s*\}\}", value, template)


def main(root: Path, words: list[str]) -> int:
    """Be `docker`."""
    try:
        return Docker(root).run(words)
    except Failure as failure:
        print(f"docker: {failure}", file=sys.stderr)
        return failure.code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
