"""One service as systemd runs it: commands in order, timeouts, results, and what runs at the end.

Promise: ExecStartPre lines one by one, then the main process, then (if it had started) ExecStop,
and ExecStopPost always, with SERVICE_RESULT, EXIT_CODE and EXIT_STATUS as systemd.exec(5)
describes them. Each command leads a process group of its own; a stop or a timeout sends TERM to
everything the command started and KILL after TimeoutStopSec.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from atemporal.twin import processes, unit

_CLEAN_SIGNALS = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE}


class Surroundings(Protocol):
    """What a service needs of its machine."""

    root: Path
    environment: dict[str, str]

    def on_host(self, argv: list[str]) -> list[str]:
        """Map a command's paths into the machine's root."""

    def output(self, kind: str, name: str) -> int:
        """Open where a unit's output goes (journal, console, null), as a file descriptor."""

    def say(self, line: str) -> None:
        """Write a line to the console."""


@dataclass
class Exit:
    """How a process ended: `code` as systemd's EXIT_CODE, `status` as its EXIT_STATUS.

    `number` is the exit code, or minus the signal's number.
    """

    code: str
    status: str
    number: int
    timed_out: bool = False


class Service:
    """One run of a service; `ended` is called once, from the run's own thread, with success."""

    def __init__(
        self, spec: unit.Service, machine: Surroundings, ended: Callable[[Service, bool], None]
    ) -> None:
        self.spec = spec
        self.result = "success"
        self.exit: Exit | None = None
        self.over = threading.Event()
        self._machine = machine
        self._ended = ended
        self._settled = threading.Event()
        self._stopping = threading.Event()
        self._frozen = threading.Event()
        self._lock = threading.Lock()
        self._current: subprocess.Popen[bytes] | None = None
        self._pids: set[int] = set()
        self._invocation = uuid.uuid4().hex
        self._thread = threading.Thread(target=self._live, name=spec.name, daemon=True)

    def start(self) -> bool:
        """Start it and wait, as `systemctl start` does; tell whether it started."""
        self._machine.say(f"         Starting {self.spec.name} - {self.spec.description}...")
        self._thread.start()
        self._settled.wait()
        return self.result == "success"

    def stop(self) -> None:
        """Stop it and wait until its last ExecStopPost has ended."""
        first = not self._stopping.is_set()
        self._stopping.set()
        if first and self._settled.is_set() and not self.over.is_set():
            self._run_stop_commands()
        self._end_current()
        self.over.wait()

    def freeze(self) -> None:
        """Start nothing any more, not even what runs at the end: the init is gone."""
        with self._lock:
            self._frozen.set()

    def _live(self) -> None:
        spec = self.spec
        deadline = (
            None if spec.start_timeout_s is None else time.monotonic() + spec.start_timeout_s
        )
        started = self._prepare(deadline) and self._main(deadline)
        if started and not self._stopping.is_set():
            self._run_stop_commands()
        processes.send(processes.tree(self._pids), signal.SIGTERM)
        with self._lock:
            self._current = None
        self._stopping.set()
        environment = {"SERVICE_RESULT": self.result}
        if self.exit is not None:
            environment |= {"EXIT_CODE": self.exit.code, "EXIT_STATUS": self.exit.status}
        for command in spec.stop_post:
            ended = self._run(
                command, spec.stop_timeout_s, environment, beside_main=True, even_if_stopping=True
            )
            if not self._good(ended, command) and self.result == "success":
                self.result = self._name(ended)
        processes.send(processes.tree(self._pids), signal.SIGKILL)
        failed = self.result != "success"
        if failed:
            self._machine.say(f"[FAILED] {spec.name} failed with result '{self.result}'.")
        else:
            self._machine.say(f"[  OK  ] {spec.name} ended.")
        self._ended(self, not failed)
        self.over.set()
        self._settled.set()

    def _prepare(self, deadline: float | None) -> bool:
        for command in self.spec.start_pre:
            ended = self._run(command, _left(deadline))
            if not self._good(ended, command):
                self.result = self._name(ended)
                return False
        return not self._stopping.is_set()

    def _main(self, deadline: float | None) -> bool:
        """Run the main process to its end; tell whether the service had started."""
        spec = self.spec
        oneshot = spec.type == "oneshot"
        for command in spec.start:
            limit = _left(deadline) if oneshot else spec.runtime_max_s
            ended = self._run(command, limit, on_start=None if oneshot else self._is_up)
            self.exit = ended
            if not self._good(ended, command, daemon=not oneshot):
                self.result = self._name(ended)
                return not oneshot and ended is not None and self._settled.is_set()
        if oneshot:
            self._is_up()
        if spec.remain_after_exit:
            self._stopping.wait()
        return True

    def _is_up(self) -> None:
        for command in self.spec.start_post:
            self._run(command, self.spec.start_timeout_s, beside_main=True)
        if self.spec.type != "oneshot" or self.spec.remain_after_exit:
            self._machine.say(f"[  OK  ] Started {self.spec.name} - {self.spec.description}.")
            self._settled.set()

    def _run_stop_commands(self) -> None:
        for command in self.spec.stop:
            self._run(command, self.spec.stop_timeout_s, beside_main=True, even_if_stopping=True)

    def _run(
        self,
        command: unit.Command,
        limit_s: float | None,
        environment: dict[str, str] | None = None,
        *,
        on_start: Callable[[], None] | None = None,
        beside_main: bool = False,
        even_if_stopping: bool = False,
    ) -> Exit | None:
        """Run one command to its end; None: it could not be executed, or is no longer wanted."""
        variables = {
            **self._machine.environment,
            "INVOCATION_ID": self._invocation,
            **self.spec.environment,
            **(environment or {}),
        }
        argv = self._machine.on_host(unit.expand_variables(command, variables))
        with self._lock:
            if self._frozen.is_set() or (self._stopping.is_set() and not even_if_stopping):
                return None
            process = self._spawn(argv, variables)
            if process is None:
                return Exit("exited", "203", 203)
            self._pids.add(process.pid)
            if not beside_main:
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
        return _exit(number, expired.is_set())

    def _spawn(
        self, argv: Sequence[str], variables: dict[str, str]
    ) -> subprocess.Popen[bytes] | None:
        stdout = self._machine.output(self.spec.stdout, self.spec.name)
        stderr = self._machine.output(self.spec.stderr, self.spec.name)
        try:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=variables,
                cwd=self._machine.root,
                process_group=0,
            )
        except OSError as error:
            self._machine.say(f"systemd[1]: {self.spec.name}: can not execute {argv[0]}: {error}")
            return None
        finally:
            os.close(stdout)
            os.close(stderr)

    def _expire(self, process: subprocess.Popen[bytes], expired: threading.Event) -> None:
        expired.set()
        self._machine.say(f"systemd[1]: {self.spec.name}: a command has timed out, terminating it")
        self._end(process)

    def _end_current(self) -> None:
        with self._lock:
            process = self._current
        if process is not None and process.returncode is None:
            self._end(process)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """TERM to a command and all it started, KILL to what is left after TimeoutStopSec."""
        members = processes.tree({process.pid})
        processes.send(members, signal.SIGTERM)
        if self.spec.stop_timeout_s is not None:
            kill = threading.Timer(self.spec.stop_timeout_s, self._kill, (process,))
            kill.daemon = True
            kill.start()

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        if process.returncode is None:
            processes.send(processes.tree({process.pid}), signal.SIGKILL)

    def _good(self, ended: Exit | None, command: unit.Command, *, daemon: bool = False) -> bool:
        """Whether a command ended well; for a daemon a signal that asks it to end is no failure."""
        if ended is None or ended.timed_out:
            return False
        if command.may_fail:
            return True
        if ended.code == "exited":
            return ended.number in self.spec.success_codes
        return daemon and -ended.number in _CLEAN_SIGNALS

    def _name(self, ended: Exit | None) -> str:
        if ended is None:
            return "success"
        if ended.timed_out:
            return "timeout"
        return {"exited": "exit-code", "killed": "signal", "dumped": "core-dump"}[ended.code]


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _exit(number: int, timed_out: bool) -> Exit:
    if number >= 0:
        return Exit("exited", str(number), number, timed_out)
    name = signal.Signals(-number).name
    code = "dumped" if name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL") else "killed"
    return Exit(code, name.removeprefix("SIG"), number, timed_out)
