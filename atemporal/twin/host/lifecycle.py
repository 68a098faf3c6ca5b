"""One instance's lifecycle: a thread, from its launch to its end.

Promise: a machine is a process of its own in a session of its own, so the death of the twin does
not touch it; a twin that starts again finds it by its lock and takes it back. When an instance is
`terminated`, no process and no container of it is left, and its disk (`root/`) is deleted.

Mechanism: the twin takes the lock of `instances/<id>/lock` and hands it down to the machine's
process, so the lock is held exactly as long as that process lives, whoever started it. Waiting for
its end is waiting for the lock. A process is signalled only if it has the id *and* the start time
in `machine.json`. A machine that ends without `ended.json` crashed: Server.InternalError.
"""

from __future__ import annotations

import base64
import fcntl
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from atemporal.errors import Unavailable
from atemporal.twin import jsonfile, processes
from atemporal.twin.catalogue import programs
from atemporal.twin.containers.engine import Engine
from atemporal.twin.faults.fault import Fault
from atemporal.twin.faults.plan import Ending, FaultPlan
from atemporal.twin.host.pace import Pace
from atemporal.twin.state import (
    PENDING,
    RUNNING,
    SHUTTING_DOWN,
    STOPPED,
    STOPPING,
    TERMINATED,
    Instance,
    State,
)

_PACKAGE_PARENT = Path(__file__).resolve().parents[3]
_log = logging.getLogger(__name__)


class Lifecycle(threading.Thread):
    """One instance; except for the API's terminate, only this thread changes its state.

    `over` is called with the instance's id when there is nothing left to do for it.
    """

    def __init__(
        self,
        instance: Instance,
        *,
        state: State,
        plan: FaultPlan,
        engine: Engine,
        pace: Pace,
        clock: Callable[[], float],
        metadata_url: str,
        over: Callable[[str], None],
    ) -> None:
        super().__init__(name=instance.id, daemon=True)
        self._id = instance.id
        self._state = state
        self._plan = plan
        self._engine = engine
        self._pace = pace
        self._clock = clock
        self._metadata_url = metadata_url
        self._over = over
        self._directory = state.directory(instance.id)
        self._end_requested = threading.Event()
        self._gone = threading.Event()
        self._abandoned = threading.Event()
        self._forced = threading.Event()
        self._spawning = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._timers: dict[Fault, threading.Timer] = {}
        if instance.over:
            self.terminate()

    def terminate(self, *, at_once: bool = False) -> None:
        """Tell the machine to shut down, and kill it if that takes too long; do not wait for it.

        `at_once`: its operating system is not told, it is killed.
        """
        self._end_requested.set()
        how = self._kill if at_once else self._shut_down
        threading.Thread(target=how, daemon=True).start()

    def force(self) -> None:
        """Kill its machine, and do not let it stay shutting-down any longer."""
        self.unstick()
        self.terminate(at_once=True)

    def unstick(self) -> None:
        """Do not let it stay shutting-down any longer than its machine takes."""
        self._forced.set()

    def abandon(self) -> None:
        """Change nothing from now on: the twin stops, the machine goes on."""
        self._abandoned.set()
        self._forced.set()
        self._end_requested.set()
        self._cancel_endings()

    def schedule_endings(self) -> None:
        """See to it that the instance has its planned end."""
        instance = self._state.get(self._id)
        for ending in self._plan.endings(instance) if instance else ():
            if ending.fault not in self._timers:
                delay = max(0.0, ending.at - self._clock())
                timer = threading.Timer(delay, self._end, (ending,))
                timer.daemon = True
                self._timers[ending.fault] = timer
                timer.start()

    def run(self) -> None:
        """Take the instance from its launch to its end."""
        state, pace, plan = self._state, self._pace, self._plan
        instance = state.get(self._id)
        if instance is None:
            return
        self._directory.mkdir(exist_ok=True)
        self.schedule_endings()
        if instance.state == PENDING and not self._end_requested.wait(
            plan.pending_s(instance, pace.pending_s)
        ):
            state.change(self._id, unless=(SHUTTING_DOWN, TERMINATED), state=RUNNING)
        if (
            not self._end_requested.is_set()
            and not self._was_spawned()
            and not self._end_requested.wait(plan.boot_s(instance, pace.boot_of(self._id)))
        ):
            self._spawn(instance)
        self._wait_for_the_machine()
        self._cancel_endings()
        if not self._abandoned.is_set():
            self._record_end()
        if not self._abandoned.is_set():
            self._over(self._id)

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
        user_data = base64.b64decode(self._state.reservation(instance).user_data)
        (self._directory / "user-data").write_bytes(user_data)
        boot = {
            "instance_id": self._id,
            "metadata_url": self._metadata_url,
            "engine": self._engine.as_dict(),
            "engine_summary": self._engine.says,
            "programs": programs(instance.parameters["ImageId"]),
            "addresses": {"private_ipv4": instance.private_ip, "public_ipv4": "127.0.0.1"},
        }
        jsonfile.replace(self._directory / "boot.json", boot)
        path = os.pathsep.join(filter(None, (str(_PACKAGE_PARENT), os.environ.get("PYTHONPATH"))))
        with (
            self._spawning,
            (self._directory / "lock").open("w") as lock,
            (self._directory / "machine.log").open("wb") as log,
        ):
            if self._end_requested.is_set():
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

    def _shut_down(self) -> None:
        with self._spawning:
            process = self._process
        if process is not None and process.returncode is None:
            processes.send([process.pid], signal.SIGTERM)
        elif identity := self._identity():
            processes.send_to(*identity, signal.SIGTERM)
        if not self._gone.wait(self._pace.kill_after_s) and (identity := self._identity()):
            processes.kill_family(*identity)

    def _kill(self) -> None:
        """End the machine at once, booted or not; the lifecycle's own thread ends what is left."""
        self._end_requested.set()
        with self._spawning:
            process = self._process
        if process is not None and process.returncode is None:
            processes.kill_family(process.pid, processes.start_time(process.pid) or "")
        elif identity := self._identity():
            processes.kill_family(*identity)

    def _end(self, ending: Ending) -> None:
        """Give the instance its planned end, unless its end has begun already."""
        with self._state.lock:
            instance = self._state.get(self._id)
            if self._abandoned.is_set() or self._gone.is_set() or not instance or instance.over:
                return
            self._state.change(
                self._id,
                state=SHUTTING_DOWN,
                state_reason=(ending.code, f"{ending.code}: {ending.message}"),
            )
        self._plan.ended(instance, ending)
        if ending.orderly:
            self.terminate()
        else:
            self._kill()

    def _cancel_endings(self) -> None:
        for timer in list(self._timers.values()):
            timer.cancel()

    def _identity(self) -> tuple[int, str] | None:
        """The id and the start time of the machine's process; None before it has written them."""
        saved = jsonfile.read(self._directory / "machine.json")
        return (saved["pid"], saved["started"]) if saved else None

    def _record_end(self) -> None:
        """The machine's process is gone: end what it left, and save the instance's end."""
        if identity := self._identity():
            processes.kill_family(*identity)
        try:
            self._engine.remove_containers(self._id)
        except Unavailable as error:
            _log.error("containers of %s may be left: %s", self._id, error)
        ended = jsonfile.read(self._directory / "ended.json")
        by = ended["by"] if ended else "crash"
        instance = self._state.get(self._id)
        if instance is not None and not instance.over:
            if by == "poweroff":
                reason = ("Client.InstanceInitiatedShutdown", "Instance initiated shutdown")
            else:
                reason = ("Server.InternalError", "Internal error on launch or of the host")
            stops = by == "poweroff" and instance.shutdown_behaviour == "stop"
            instance = self._state.change(
                self._id,
                unless=(SHUTTING_DOWN, TERMINATED),
                state=STOPPING if stops else SHUTTING_DOWN,
                state_reason=(reason[0], f"{reason[0]}: {reason[1]}"),
            )
        if self._abandoned.wait(self._pace.shutdown_s) or instance is None:
            return
        if instance.state == STOPPING:
            instance = self._state.change(
                self._id, unless=(SHUTTING_DOWN, TERMINATED), state=STOPPED
            )
            if instance.state == STOPPED:
                return
        self._forced.wait(self._plan.sticks_s(instance))
        if self._abandoned.is_set():
            return
        # A job may have left what even its owner can not delete; that must not keep the instance.
        shutil.rmtree(self._directory / "root", ignore_errors=True)
        self._state.change(self._id, state=TERMINATED, terminated_at=self._clock())
