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
from atemporal.twin.fate import Ending, Fates
from atemporal.twin.mishaps import Mishap
from atemporal.twin.rule import Rule

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
        fates: Fates,
        engine: Engine,
        pace: Pace,
        clock: Callable[[], float],
        metadata_url: Callable[[str], str],
    ) -> None:
        self.books = books
        self.fates = fates
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
                self._go_on(instance)

    def launch(self, instance: Instance) -> None:
        """Begin the life of a new instance."""
        self.fates.launched(instance)
        self._go_on(instance)

    def strike(self, rule: Rule, number: float) -> None:
        """Let a fault happen to the running instance that the rule names.

        Raises:
            NotFound, Conflict, Invalid: it can not happen to it.
        """
        instance_id = self.fates.strike(rule, number)
        with self._lock:
            life = self._lives.get(instance_id)
        if life is not None:
            life.await_endings()

    def _go_on(self, instance: Instance) -> None:
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
            self._go_on(instance)

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
        self._timers: dict[Mishap, threading.Timer] = {}
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
        self._cancel_endings()

    def await_endings(self) -> None:
        """See to it that the instance is ended as its fate says."""
        host = self._host
        instance = host.books.get(self._id)
        for ending in host.fates.endings(instance) if instance else ():
            if ending.mishap not in self._timers:
                delay = max(0.0, ending.at - host.clock())
                timer = threading.Timer(delay, self._meet, (ending,))
                timer.daemon = True
                self._timers[ending.mishap] = timer
                timer.start()

    def run(self) -> None:
        """Live."""
        books, pace, fates = self._host.books, self._host.pace, self._host.fates
        instance = books.get(self._id)
        if instance is None:
            return
        self._directory.mkdir(exist_ok=True)
        self.await_endings()
        if instance.state == PENDING and not self._doomed.wait(
            fates.pending_s(instance, pace.pending_s)
        ):
            books.change(self._id, unless=(SHUTTING_DOWN, TERMINATED), state=RUNNING)
        if (
            not self._doomed.is_set()
            and not self._was_spawned()
            and not self._doomed.wait(fates.boot_s(instance, pace.boot_s))
        ):
            self._spawn(instance)
        self._wait_for_the_machine()
        self._cancel_endings()
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

    def _pull_the_plug(self) -> None:
        """End the machine at once, booted or not; its other thread sees to what is left."""
        self._doomed.set()
        with self._spawning:
            process = self._process
        if process is not None and process.returncode is None:
            processes.kill_family(process.pid, processes.start_time(process.pid) or "")
        elif identity := self._identity():
            processes.kill_family(*identity)

    def _meet(self, ending: Ending) -> None:
        """End the instance, unless that has begun already."""
        books = self._host.books
        with books.lock:
            instance = books.get(self._id)
            if self._abandoned.is_set() or self._gone.is_set() or not instance or instance.over:
                return
            books.change(
                self._id,
                state=SHUTTING_DOWN,
                state_reason=(ending.code, f"{ending.code}: {ending.message}"),
            )
        self._host.fates.ended(instance, ending)
        if ending.orderly:
            self.terminate()
        else:
            self._pull_the_plug()

    def _cancel_endings(self) -> None:
        for timer in list(self._timers.values()):
            timer.cancel()

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
