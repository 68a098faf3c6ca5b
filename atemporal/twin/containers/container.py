"""A container that is a process of the host: its files.

Promise: what `docker inspect`, `docker wait` and `docker logs` report is in these files, and stays
true if a process is killed at any moment.

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
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from atemporal.twin import jsonfile, processes

NEVER = "0001-01-01T00:00:00Z"
CREATED = {
    "Status": "created",
    "Running": False,
    "ExitCode": 0,
    "OOMKilled": False,
    "Error": "",
    "Pid": 0,
    "StartedAt": NEVER,
    "FinishedAt": NEVER,
}
FRAME = struct.Struct(">BI")
# How often who follows looks for more.
FOLLOW_EVERY_S = 0.1


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
        """Save a new one."""
        try:
            self.directory.mkdir(parents=True)
        except FileExistsError:
            raise Failure(f"the container name {self.name!r} is already in use", 125) from None
        (self.directory / "scratch").mkdir()
        (self.directory / "lock").touch()
        self.save(CREATED)
        jsonfile.replace(self.directory / "config.json", config)

    def save(self, state: dict[str, Any]) -> None:
        """Save its state."""
        jsonfile.replace(self.directory / "state.json", state)

    def wait(self, within_s: float | None = None) -> bool:
        """Wait until it does not run; return whether that came within so many seconds."""
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
                while len(head := log.read(FRAME.size)) == FRAME.size:
                    stream, length = FRAME.unpack(head)
                    yield stream, log.read(length)

    def follow(self) -> Iterator[tuple[int, bytes]]:
        """Its output from the beginning, and what comes until it has ended.

        As of a container, what was rotated away twice before it was read is lost.
        """
        log, inode = self._open()
        if (older := self.directory / "log.1").exists():
            with older.open("rb") as before:
                yield from _whole_frames(before)
        while True:
            # Asked first: what is written until then is read below.
            over = not self.state["Running"] and self.state["Status"] != "created"
            yield from _whole_frames(log)
            if (self.directory / "log").stat().st_ino != inode:
                yield from _whole_frames(log)
                log.close()
                log, inode = self._open()
            elif over:
                log.close()
                return
            else:
                self.wait(FOLLOW_EVERY_S)

    def _open(self) -> tuple[IO[bytes], int]:
        path = self.directory / "log"
        # It is made when the container starts.
        log = path.open("a+b")
        log.seek(0)
        return log, os.fstat(log.fileno()).st_ino

    def _monitor_gone(self) -> bool:
        with (self.directory / "lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True


def _whole_frames(log: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """The frames behind the position of a log, which stays before one that is being written."""
    while True:
        at = log.tell()
        head = log.read(FRAME.size)
        if len(head) == FRAME.size:
            stream, length = FRAME.unpack(head)
            if len(chunk := log.read(length)) == length:
                yield stream, chunk
                continue
        log.seek(at)
        return


def now() -> str:
    """This instant, as docker writes instants."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
