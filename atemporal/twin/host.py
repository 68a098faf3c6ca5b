"""The host of the machines: one thread an instance, from its launch to its end.

Promise: a machine is a process of its own in a session of its own, so the death of the twin is
nothing to it; a twin that starts again finds it by its lock and takes it back. When an instance is
`terminated`, no process and no container of it is left, and its disk (`root/`) is deleted.

Mechanism: the twin takes the lock of `instances/<id>/lock` and hands it down to the machine's
process, so the lock is held exactly as long as that process lives, whoever started it; waiting for
its end is waiting for the lock. To be signalled a process must have the id *and* the start time
that `machine.json` says. A machine that ends without `ended.json` crashed: Server.InternalError.
"""

from __future__ import annotations

import base64
import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from atemporal.errors import Unavailable
from atemporal.twin import processes
from atemporal.twin.books import (
    PENDING,
    RUNNING,
    SHUTTING_DOWN,
    STOPPED,
    STOPPING,
    TERMINATED,
    Books,
    Instance,
    replace_file,
)
from atemporal.twin.engine import Engine

_PACKAGE_PARENT = Path(__file__).resolve().parents[2]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pace:
    """How long things take, in seconds; `kill_after_s` is the patience with a machine's shutdown.

    `pending_s` passes before an instance is running, `boot_s` from there until its user-data is
    executed, `shutdown_s` from the end of its last process until it is terminated.
    """

    pending_s: float = 0.0
    boot_s: float = 0.0
    shutdown_s: float = 0.0
    kill_after_s: float = 10.0


class Host:
    """All machines of a twin."""

    def __init__(
        self,
        books: Books,
        engine: Engine,
        pace: Pace,
        clock: Callable[[], float],
        metadata_url: Callable[[str], str],
    ) -> None:
        self.books = books
        self.engine = engine
        self.pace = pace
        self.clock = clock
        self.metadata_url = metadata_url
        self._lives: dict[str, Life] = {}
        self._lock = threading.Lock()

    def resume(self) -> None:
        """Take back every machine that an earlier twin on this directory left."""
        for instance in self.books.instances():
            if instance.state not in (TERMINATED, STOPPED):
                self.launch(instance)

    def launch(self, instance: Instance) -> None:
        """Begin the life of an instance, or go on with it."""
        life = Life(self, instance.id, doomed=instance.over)
        with self._lock:
            self._lives[instance.id] = life
        life.start()

    def terminate(self, instance: Instance) -> None:
        """End the machine of an instance that has been set to shutting-down."""
        with self._lock:
            life = self._lives.get(instance.id)
        if life is not None:
            life.terminate()
        else:
            self.launch(instance)

    def close(self, *, power_off: bool) -> None:
        """Let go of all machines, which live on, or power them off first."""
        with self._lock:
            lives = list(self._lives.values())
        if power_off:
            for life in lives:
                life.terminate()
            for life in lives:
                life.join(2 * self.pace.kill_after_s + self.pace.shutdown_s)
        for life in lives:
            life.abandon()

    def forget(self, instance_id: str) -> None:
        """A life is over."""
        with self._lock:
            self._lives.pop(instance_id, None)


class Life(threading.Thread):
    """One instance; apart from the API's terminate, only this thread changes its state."""

    def __init__(self, host: Host, instance_id: str, *, doomed: bool) -> None:
        super().__init__(name=instance_id, daemon=True)
        self._host = host
        self._id = instance_id
        self._directory = host.books.directory(instance_id)
        self._doomed = threading.Event()
        self._gone = threading.Event()
        self._abandoned = threading.Event()
        self._spawning = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        if doomed:
            self.terminate()

    def terminate(self) -> None:
        """Press the power button, and pull the plug if that takes too long; do not wait for it."""
        self._doomed.set()
        threading.Thread(target=self._press_the_button, daemon=True).start()

    def abandon(self) -> None:
        """Change nothing from now on: the twin stops, the machine does not."""
        self._abandoned.set()
        self._doomed.set()

    def run(self) -> None:
        """Live."""
        books, pace = self._host.books, self._host.pace
        instance = books.get(self._id)
        if instance is None:
            return
        self._directory.mkdir(exist_ok=True)
        if instance.state == PENDING and not self._doomed.wait(pace.pending_s):
            books.change(self._id, unless=(SHUTTING_DOWN, TERMINATED), state=RUNNING)
        if not self._was_spawned() and not self._doomed.wait(pace.boot_s):
            self._spawn(instance)
        self._wait_for_the_machine()
        if not self._abandoned.is_set():
            self._settle()
        if not self._abandoned.is_set():
            self._host.forget(self._id)

    def _was_spawned(self) -> bool:
        """Whether this instance has a machine, or had one; a machine's first act is a file."""
        if (self._directory / "machine.json").exists():
            return True
        with (self._directory / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def _spawn(self, instance: Instance) -> None:
        host = self._host
        user_data = base64.b64decode(host.books.reservation(instance).user_data)
        (self._directory / "user-data").write_bytes(user_data)
        boot = {
            "instance_id": self._id,
            "metadata_url": host.metadata_url(self._id),
            "engine": host.engine.as_dict(),
            "engine_says": host.engine.says,
            "addresses": {"private_ipv4": instance.private_ip, "public_ipv4": "127.0.0.1"},
        }
        replace_file(self._directory / "boot.json", boot)
        path = os.pathsep.join(filter(None, (str(_PACKAGE_PARENT), os.environ.get("PYTHONPATH"))))
        with (
            self._spawning,
            (self._directory / "lock").open("w") as lock,
            (self._directory / "machine.log").open("wb") as log,
        ):
            if self._doomed.is_set():
                return
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "atemporal.twin.machine", str(self._directory)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                env={**os.environ, "PYTHONPATH": path},
                pass_fds=(lock.fileno(),),
                start_new_session=True,
            )

    def _wait_for_the_machine(self) -> None:
        with (self._directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
        if self._process is not None:
            self._process.wait()
        self._gone.set()

    def _press_the_button(self) -> None:
        with self._spawning:
            process = self._process
        if process is not None and process.returncode is None:
            processes.send([process.pid], signal.SIGTERM)
        elif identity := self._identity():
            processes.send_to(*identity, signal.SIGTERM)
        if not self._gone.wait(self._host.pace.kill_after_s) and (identity := self._identity()):
            processes.kill_family(*identity)

    def _identity(self) -> tuple[int, str] | None:
        """The machine's process as it named itself; None before it did."""
        path = self._directory / "machine.json"
        if not path.exists():
            return None
        named = json.loads(path.read_bytes())
        return named["pid"], named["started"]

    def _settle(self) -> None:
        """The machine's process is gone: end what it left, and write the instance's end down."""
        books = self._host.books
        if identity := self._identity():
            processes.kill_family(*identity)
        try:
            self._host.engine.remove_containers(self._id)
        except Unavailable as error:
            _log.error("containers of %s may be left: %s", self._id, error)
        ended = self._directory / "ended.json"
        by = json.loads(ended.read_bytes())["by"] if ended.exists() else "crash"
        instance = books.get(self._id)
        if instance is not None and not instance.over:
            if by == "poweroff":
                reason = ("Client.InstanceInitiatedShutdown", "Instance initiated shutdown")
            else:
                reason = ("Server.InternalError", "Internal error on launch or of the host")
            stops = by == "poweroff" and instance.shutdown_behaviour == "stop"
            instance = books.change(
                self._id,
                unless=(SHUTTING_DOWN, TERMINATED),
                state=STOPPING if stops else SHUTTING_DOWN,
                state_reason=(reason[0], f"{reason[0]}: {reason[1]}"),
            )
        if self._abandoned.wait(self._host.pace.shutdown_s) or instance is None:
            return
        if instance.state == STOPPING:
            instance = books.change(self._id, unless=(SHUTTING_DOWN, TERMINATED), state=STOPPED)
            if instance.state == STOPPED:
                return
        # A job may have left what even its owner can not delete; that must not keep the instance.
        shutil.rmtree(self._directory / "root", ignore_errors=True)
        books.change(self._id, state=TERMINATED, terminated_at=self._host.clock())
