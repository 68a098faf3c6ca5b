"""Processes of this host: which ones descend from which, and how to end them all.

Promise: a process is identified by its id *and* its start time, so that an id that the host has
given to another process since is never signalled. A machine's family is everything that descends
from its first process or is in its session. A process leaves its session only by becoming a daemon,
and daemons come back to the machine's process as children, where the host can do that (Linux).
Reads /proc where there is one, else `ps`.

Why not psutil: its start times are those of the wall clock (boot time plus the process's age), so
one that was saved by another process does not compare after the clock was set, and then a machine
could not be ended any more. It has neither sessions nor process groups, so the table would have to
be built here all the same, and takes a third longer. And the machines' `docker` and `curl` start
without site-packages, in which it is, to be fast.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Process:
    """A process that is not a zombie."""

    pid: int
    parent: int
    group: int
    session: int
    started: str


def adopt_orphans() -> None:
    """Make this process the parent of its descendants' orphans, where the host can do that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def start_time(pid: int) -> str | None:
    """When the process started, in the host's own notation; None if there is no such process."""
    if not _PROC.joinpath("self/stat").exists():
        return next((process.started for process in _table() if process.pid == pid), None)
    process = _from_proc(pid)
    return process.started if process else None


def tree(leaders: set[int]) -> list[int]:
    """These processes, those in the groups they lead, and all descendants of both.

    Only the caller's session counts: a leader that ended may have left its id to a stranger.
    """
    table = _table()
    session = os.getsid(0)
    return _descend(
        table,
        {p.pid for p in table if p.session == session and leaders & {p.pid, p.group}},
    )


def family(pid: int, started: str) -> list[int]:
    """The process, its descendants and all of its session, except the caller.

    The session can outlive its first process: the host gives no new process an id that names a
    session. If another process has the id by now, the session has ended: there is no family.
    """
    table = _table()
    if any(process.pid == pid and process.started != started for process in table):
        return []
    members = {p.pid for p in table if p.pid == pid or p.session == pid}
    return [member for member in _descend(table, members) if member != os.getpid()]


def _descend(table: list[Process], members: set[int]) -> list[int]:
    while more := {p.pid for p in table if p.parent in members} - members:
        members = members | more
    return sorted(members)


def send(pids: list[int], number: signal.Signals) -> None:
    """Signal the processes that are still there."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def send_to(pid: int, started: str, number: signal.Signals) -> None:
    """Signal a process, unless it is gone and another one has its id."""
    if start_time(pid) == started:
        send([pid], number)


def kill_family(pid: int, started: str) -> None:
    """Kill a family to the last member and see it gone.

    All are halted before the first is killed: a member that dies gives its children to the host's
    first process, where they could not be found any more.
    """
    halted: set[int] = set()
    while members := set(family(pid, started)):
        if members <= halted:
            send(sorted(members), signal.SIGKILL)
            time.sleep(0.002)
        else:
            send(sorted(members - halted), signal.SIGSTOP)
            halted |= members


def _table() -> list[Process]:
    if not _PROC.joinpath("self/stat").exists():
        return _from_ps()
    pids = (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())
    return [process for pid in pids if (process := _from_proc(pid))]


def _from_proc(pid: int) -> Process | None:
    try:
        stat = _PROC.joinpath(str(pid), "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name, in brackets, may hold anything; the numbers stand behind its last bracket.
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX":
        return None
    return Process(pid, int(fields[1]), int(fields[2]), int(fields[3]), fields[19])


def _from_ps() -> list[Process]:
    columns = ["ps", "-axo", "pid=,ppid=,pgid=,stat=,lstart="]
    lines = subprocess.run(columns, capture_output=True, text=True, check=True).stdout.splitlines()
    found = []
    for line in lines:
        pid, parent, group, state, started = line.split(None, 4)
        if not state.startswith("Z"):
            session = _session(int(pid))
            found.append(Process(int(pid), int(parent), int(group), session, started))
    return found


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0
