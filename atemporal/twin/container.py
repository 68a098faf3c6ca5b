"""`docker` on a machine when the host has no container engine: the command as a process of the
host.

Promise: what a job asks of its container it gets, but for the image, which is not run, and this is
said on the machine's console and on the standard error of `docker start`, never in the job's own
log. The job's command runs with exactly the environment given to `docker create` (and PATH) in an
empty directory; its output is kept for `docker logs`, its end for `docker inspect` and `docker
wait`. A container without a command can not be created: only the image would know what to run.

A container is a directory under ROOT/var/lib/docker: `config.json`, `state.json`, `log`,
`scratch/` and `lock`, which the container's monitor holds as long as it runs; so waiting for a
container is waiting for that lock, and a monitor that was killed is not mistaken for a running
one.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from atemporal.twin import dockerline, processes

NEVER = "0001-01-01T00:00:00Z"
_CREATED = {
    "Status": "created",
    "Running": False,
    "ExitCode": 0,
    "OOMKilled": False,
    "Error": "",
    "Pid": 0,
    "StartedAt": NEVER,
    "FinishedAt": NEVER,
}
_FRAME = struct.Struct(">BI")
_LOG_SIZES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


class Failure(Exception):
    """What docker would print on its standard error; `code` is its exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        self.code = code
        super().__init__(message)


class Container:
    """One container of a machine."""

    def __init__(self, root: Path, name: str) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise Failure(f"Error response from daemon: Invalid container name ({name})", 125)
        self.name = name
        self.directory = root / "var/lib/docker" / name

    @property
    def config(self) -> dict[str, Any]:
        """What it was created with.

        Raises:
            Failure: there is no such container.
        """
        try:
            config: dict[str, Any] = json.loads((self.directory / "config.json").read_bytes())
        except FileNotFoundError:
            raise Failure(f"Error response from daemon: No such container: {self.name}") from None
        return config

    @property
    def state(self) -> dict[str, Any]:
        """Its state, with docker's names; a running one whose monitor is gone was killed."""
        self.config  # noqa: B018 - raises if there is no such container
        state: dict[str, Any] = json.loads((self.directory / "state.json").read_bytes())
        if state["Running"] and self._monitor_gone():
            state = json.loads((self.directory / "state.json").read_bytes())
            if state["Running"]:
                state |= {"Status": "exited", "Running": False, "ExitCode": 137, "Pid": 0}
        return state

    def create(self, config: dict[str, Any]) -> None:
        """Write it down."""
        try:
            self.directory.mkdir(parents=True)
        except FileExistsError:
            raise Failure(f"the container name {self.name!r} is already in use", 125) from None
        (self.directory / "scratch").mkdir()
        (self.directory / "lock").touch()
        self.save(_CREATED)
        self._replace("config.json", config)

    def save(self, state: dict[str, Any]) -> None:
        """Write its state down, whole."""
        self._replace("state.json", state)

    def wait(self, within_s: float | None = None) -> bool:
        """Wait until it does not run; tell whether that came within so many seconds."""
        with (self.directory / "lock").open() as lock:
            if within_s is not None:

                def too_long(_signal: int, _frame: object) -> None:
                    raise TimeoutError

                signal.signal(signal.SIGALRM, too_long)
                signal.setitimer(signal.ITIMER_REAL, max(within_s, 0.001))
            try:
                fcntl.flock(lock, fcntl.LOCK_SH)
            except TimeoutError:
                return False
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        return True

    def signal(self, number: signal.Signals) -> None:
        """Signal its first process."""
        state = self.state
        if not state["Running"]:
            raise Failure(f"Error response from daemon: container {self.name} is not running")
        processes.send([state["Pid"]], number)

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Its output so far: (1 standard output or 2 standard error, a line or a part of one)."""
        for name in ("log.1", "log"):
            path = self.directory / name
            if not path.exists():
                continue
            with path.open("rb") as log:
                while len(head := log.read(_FRAME.size)) == _FRAME.size:
                    stream, length = _FRAME.unpack(head)
                    yield stream, log.read(length)

    def _monitor_gone(self) -> bool:
        with (self.directory / "lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    def _replace(self, name: str, content: dict[str, Any]) -> None:
        draft = self.directory / f".{name}.{os.getpid()}"
        draft.write_text(json.dumps(content))
        draft.replace(self.directory / name)


class Monitor:
    """The process that stands beside a running container and sees it to its end."""

    def __init__(self, container: Container, echo: bool) -> None:
        self._container = container
        self._echo = echo
        self._lock = threading.Lock()
        self._log = (container.directory / "log").open("ab", buffering=0)

    def run(self, tell: IO[str]) -> None:
        """Run the container; `tell` gets an empty line once it runs, or why it does not."""
        config = self._container.config
        processes.adopt_orphans()
        try:
            process = subprocess.Popen(
                config["argv"],
                env=config["env"],
                cwd=self._container.directory / "scratch",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                process_group=0,
            )
        except OSError as error:
            code = 127 if isinstance(error, FileNotFoundError) else 126
            why = f"exec: {config['argv'][0]!r}: {error.strerror}"
            self._container.save({**_CREATED, "ExitCode": code, "Error": why})
            tell.write(f"{why}\n")
            tell.close()
            return
        running = {**_CREATED, "Status": "running", "Running": True, "StartedAt": _now()}
        running["Pid"] = process.pid
        self._container.save(running)
        tell.write("\n")
        tell.close()
        readers = [
            threading.Thread(target=self._keep, args=(1, process.stdout, config["log_limit"])),
            threading.Thread(target=self._keep, args=(2, process.stderr, config["log_limit"])),
        ]
        for reader in readers:
            reader.start()
        number = process.wait()
        # As in a container, nothing outlives the first process.
        me = os.getpid()
        while left := [pid for pid in processes.tree({me}) if pid != me]:
            processes.send(left, signal.SIGKILL)
        for reader in readers:
            reader.join()
        code = number if number >= 0 else 128 - number
        ended = {"Status": "exited", "Running": False, "Pid": 0, "ExitCode": code}
        self._container.save({**running, **ended, "FinishedAt": _now()})

    def _keep(self, stream: int, pipe: IO[bytes], limit: int) -> None:
        while chunk := pipe.readline(16384):
            with self._lock:
                if self._log.tell() > limit // 2:
                    self._log.close()
                    path = self._container.directory / "log"
                    path.replace(path.with_name("log.1"))
                    self._log = path.open("ab", buffering=0)
                self._log.write(_FRAME.pack(stream, len(chunk)) + chunk)
            if self._echo:
                _print(stream, chunk)


class Docker:
    """The verbs."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def run(self, words: list[str]) -> int:
        """Do what a command line says; return docker's exit code."""
        line = dockerline.parse(words)
        verb = getattr(self, f"_do_{line.verb.replace(' ', '_')}", None)
        if verb is None:
            raise Failure(f"docker {line.verb} is not modelled without a container engine", 125)
        code: int | None = verb(line)
        return code or 0

    def _do_info(self, _line: dockerline.Line) -> None:
        print("Server: a stand-in that runs a container's command as a process of this host")

    _do_version = _do_info

    def _do_pull(self, line: dockerline.Line) -> None:
        print(line.operands[-1])

    def _do_create(self, line: dockerline.Line) -> None:
        image, *argv = line.operands
        if line.has("--entrypoint") or not argv:
            raise Failure(
                f"there is no container engine here, so {image} can not say what it runs: "
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
            {"image": image, "argv": argv, "env": env, "log_limit": limit, "created": _now()}
        )
        with (self._root / "dev/console").open("w") as console:
            console.write(
                f"docker: no container engine on this host: the image {image} is not run, its "
                "command runs as a process of the host, its ports are the host's own\n"
            )
        print(name)

    def _do_start(self, line: dockerline.Line) -> int:
        container = self._container(line)
        config = container.config
        if container.state["Running"]:
            return 0
        print(f"docker: the image {config['image']} is not run, only its command", file=sys.stderr)
        sys.stderr.flush()
        attach = line.has("--attach")
        heard, told = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(heard)
            self._become_monitor(container, attach, told)
        os.close(told)
        os.waitpid(child, 0)
        with os.fdopen(heard) as answer:
            why = answer.readline()
        if why != "\n":
            raise Failure(f"Error response from daemon: {why.strip() or 'the monitor has died'}")
        if not attach:
            print(container.name)
            return 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda n, _frame: container.signal(signal.Signals(n)))
        container.wait()
        return int(container.state["ExitCode"])

    def _become_monitor(self, container: Container, attach: bool, told: int) -> None:
        """Fork once more, so that the container is not a child of who started it; never return."""
        os.setpgid(0, 0)
        if os.fork() == 0:
            nothing = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0,) if attach else (0, 1, 2):
                os.dup2(nothing, descriptor)
            with (container.directory / "lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                Monitor(container, attach).run(os.fdopen(told, "w"))
        os._exit(0)

    def _do_wait(self, line: dockerline.Line) -> None:
        container = self._container(line)
        container.config  # noqa: B018 - raises if there is no such container
        container.wait()
        print(container.state["ExitCode"])

    def _do_stop(self, line: dockerline.Line) -> None:
        container = self._container(line)
        if container.state["Running"]:
            container.signal(signal.SIGTERM)
            if not container.wait(float(line.last("--time", "10"))):
                container.signal(signal.SIGKILL)
                container.wait()
        print(container.name)

    def _do_kill(self, line: dockerline.Line) -> None:
        container = self._container(line)
        name = line.last("--signal", "KILL").removeprefix("SIG")
        container.signal(signal.Signals[f"SIG{name}"])
        print(container.name)

    def _do_inspect(self, line: dockerline.Line) -> None:
        container = self._container(line)
        config, state = container.config, container.state
        facts = {
            "Name": f"/{container.name}",
            "Created": config["created"],
            "State": state,
            "Config": {"Image": config["image"], "Cmd": config["argv"]},
        }
        template = line.last("--format")
        print(_expand(template, facts) if template else json.dumps([facts], indent=4))

    def _do_logs(self, line: dockerline.Line) -> None:
        container = self._container(line)
        container.config  # noqa: B018 - raises if there is no such container
        frames = list(container.frames())
        tail = line.last("--tail", "all")
        if tail != "all":
            frames = frames[-int(tail) :] if int(tail) else []
        for stream, chunk in frames:
            _print(stream, chunk)

    def _do_rm(self, line: dockerline.Line) -> None:
        container = self._container(line)
        if container.state["Running"]:
            if not line.has("--force"):
                raise Failure(f"Error response from daemon: container {container.name} is running")
            container.signal(signal.SIGKILL)
            container.wait()
        shutil.rmtree(container.directory)
        print(container.name)

    def _container(self, line: dockerline.Line) -> Container:
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


def _print(stream: int, chunk: bytes) -> None:
    """Write to our own output; who does not listen any more misses it, the log does not."""
    try:
        os.write(stream, chunk)
    except BrokenPipeError:
        return


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def main(root: Path, words: list[str]) -> int:
    """Be `docker`."""
    try:
        return Docker(root).run(words)
    except Failure as failure:
        print(f"docker: {failure}", file=sys.stderr)
        return failure.code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
