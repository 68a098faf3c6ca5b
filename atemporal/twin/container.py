"""A container that is a process of the host: its files, and the process that stands beside it.

Promise: the command runs with exactly the environment it was created with, in an empty directory;
its output is kept in order, its end is written down, and when its first process ends all that it
started is killed, as in a real container.

A container is a directory under ROOT/var/lib/docker: `config.json`, `state.json`, `log`,
`scratch/` and `lock`, which the container's monitor holds as long as it runs; so waiting for a
container is waiting for that lock, and a monitor that was killed is not mistaken for a running one.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from atemporal.twin import processes

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
        running = {**_CREATED, "Status": "running", "Running": True, "StartedAt": now()}
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
        self._container.save({**running, **ended, "FinishedAt": now()})

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
                emit(stream, chunk)


def emit(stream: int, chunk: bytes) -> None:
    """Write to our own output; who does not listen any more misses it, the log does not."""
    try:
        os.write(stream, chunk)
    except BrokenPipeError:
        return


def now() -> str:
    """This instant, as docker writes instants."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
