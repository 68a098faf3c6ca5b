"""One service as systemd runs it: commands in order, timeouts, the result, and what runs at the end.

Promise: ExecStartPre commands one by one, then ExecStart, and ExecStopPost always, with
SERVICE_RESULT as systemd.exec(5) describes it. Each command leads a process group of its own; a stop
or a timeout sends TERM to everything the command started, and KILL after TimeoutStopSec. ExecStopPost
waits for that: what the main process leaves behind is asked to end, and has ended, before it
(systemd.kill(5); service.c of systemd 252 stays in its state `stop-sigterm` until the control group is
empty).
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from atemporal.twin import processes
from atemporal.twin.machine.unit import Unit

_CLEAN_SIGNALS = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE}
_CORE_DUMPS = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
_NOT_EXECUTED = 203
_LEFT_EVERY_S = 0.05
"""They are not children of ours, so their ends are no events here."""


class MachineContext(Protocol):
    """What a service needs of its machine."""

    root: Path
    environment: dict[str, str]

    def on_host(self, argv: list[str]) -> list[str]:
        """Map a command's paths into the machine's root."""

    def journal(self, name: str) -> int:
        """Open where a unit's output goes, as a file descriptor."""

    def log(self, line: str) -> None:
        """Write a line to the console."""


@dataclass(frozen=True)
class Exit:
    """How a command ended: its exit code, or minus the number of the signal that killed it."""

    number: int
    timed_out: bool = False


class Service:
    """One run of a service; `ended` is called once, from the run's own thread, with success."""

    def __init__(
        self, unit: Unit, machine: MachineContext, ended: Callable[[Service, bool], None]
    ) -> None:
        self.unit = unit
        self.result = "success"
        self.over = threading.Event()
        self._machine = machine
        self._ended = ended
        self._settled = threading.Event()
        self._stopping = threading.Event()
        self._frozen = threading.Event()
        self._lock = threading.Lock()
        self._current: subprocess.Popen[bytes] | None = None
        self._pids: set[int] = set()
        self._thread = threading.Thread(target=self._run, name=unit.name, daemon=True)

    def start(self) -> bool:
        """Start it and wait, as `systemctl start` does; return whether it started."""
        self._machine.log(f"         Starting {self.unit.name} - {self.unit.description}...")
        self._thread.start()
        self._settled.wait()
        return self.result == "success"

    def stop(self) -> None:
        """Stop it and wait until its last ExecStopPost has ended."""
        self._stopping.set()
        with self._lock:
            process = self._current
        if process is not None and process.returncode is None:
            self._end(process)
        self.over.wait()

    def freeze(self) -> None:
        """Start nothing any more, not even what runs at the end: the init is gone."""
        with self._lock:
            self._frozen.set()

    def _run(self) -> None:
        unit = self.unit
        if self._prepare():
            self._execute_main()
        self._end_what_is_left()
        with self._lock:
            self._current = None
        self._stopping.set()
        for command in unit.stop_post:
            environment = {"SERVICE_RESULT": self.result}
            ended = self._execute(command, unit.stop_timeout_s, environment, at_the_end=True)
            if self.result == "success":
                self.result = _result(ended)
        processes.send(processes.tree(self._pids), signal.SIGKILL)
        failed = self.result != "success"
        if failed:
            self._machine.log(f"[FAILED] {unit.name} failed with result '{self.result}'.")
        else:
            self._machine.log(f"[  OK  ] {unit.name} ended.")
        self._ended(self, not failed)
        self.over.set()
        self._settled.set()

    def _end_what_is_left(self) -> None:
        """TERM to all that the commands have left, KILL after TimeoutStopSec; wait until it is gone."""
        limit_s = self.unit.stop_timeout_s
        deadline = None if limit_s is None else time.monotonic() + limit_s
        left = processes.tree(self._pids)
        processes.send(left, signal.SIGTERM)
        while left and not self._frozen.wait(_LEFT_EVERY_S):
            left = processes.tree(self._pids)
            if deadline is not None and time.monotonic() > deadline:
                processes.send(left, signal.SIGKILL)

    def _prepare(self) -> bool:
        """Run the commands before the main process; return whether it may run."""
        limit_s = self.unit.start_timeout_s
        deadline = None if limit_s is None else time.monotonic() + limit_s
        for command in self.unit.start_pre:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            self.result = _result(self._execute(command, left_s))
            if self.result != "success":
                return False
        return not self._stopping.is_set()

    def _execute_main(self) -> None:
        ended = self._execute(self.unit.start, None, on_start=self._report_started)
        # For the main process a signal that asks it to end is no failure.
        clean = ended is not None and -ended.number in _CLEAN_SIGNALS
        self.result = "success" if clean else _result(ended)

    def _report_started(self) -> None:
        self._machine.log(f"[  OK  ] Started {self.unit.name} - {self.unit.description}.")
        self._settled.set()

    def _execute(
        self,
        command: Sequence[str],
        limit_s: float | None,
        environment: dict[str, str] | None = None,
        *,
        on_start: Callable[[], None] | None = None,
        at_the_end: bool = False,
    ) -> Exit | None:
        """Run one command to its end; None: it is no longer wanted."""
        variables = {**self._machine.environment, **(environment or {})}
        argv = self._machine.on_host(list(command))
        with self._lock:
            if self._frozen.is_set() or (self._stopping.is_set() and not at_the_end):
                return None
            process = self._spawn(argv, variables)
            if process is None:
                return Exit(_NOT_EXECUTED)
            self._pids.add(process.pid)
            if not at_the_end:
                self._current = process
        expired = threading.Event()
        timer = threading.Timer(limit_s or 0, self._expire, (process, expired))
        timer.daemon = True
        if limit_s is not None:
            timer.start()
        if on_start:
            on_start()
        number = process.wait()
        timer.cancel()
        return Exit(number, expired.is_set())

    def _spawn(
        self, argv: Sequence[str], variables: dict[str, str]
    ) -> subprocess.Popen[bytes] | None:
        output = self._machine.journal(self.unit.name)
        try:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=variables,
                cwd=self._machine.root,
                process_group=0,
            )
        except OSError as error:
            self._machine.log(f"systemd[1]: {self.unit.name}: can not execute {argv[0]}: {error}")
            return None
        finally:
            os.close(output)

    def _expire(self, process: subprocess.Popen[bytes], expired: threading.Event) -> None:
        expired.set()
        self._machine.log(f"systemd[1]: {self.unit.name}: a command has timed out, terminating it")
        self._end(process)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """TERM to a command and all it started, KILL to what is left after TimeoutStopSec."""
        processes.send(processes.tree({process.pid}), signal.SIGTERM)
        if self.unit.stop_timeout_s is not None:
            kill = threading.Timer(self.unit.stop_timeout_s, self._kill, (process,))
            kill.daemon = True
            kill.start()

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        if process.returncode is None:
            processes.send(processes.tree({process.pid}), signal.SIGKILL)


def _result(ended: Exit | None) -> str:
    """The result of a service whose command ended so; one that was not wanted is no failure."""
    if ended is None:
        return "success"
    if ended.timed_out:
        return "timeout"
    if ended.number >= 0:
        return "exit-code" if ended.number else "success"
    return "core-dump" if -ended.number in _CORE_DUMPS else "signal"
