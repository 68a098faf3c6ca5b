"""The machine of a run: what it is, how busy it was, and how much of that was somebody else.

A figure taken beside somebody else's load means little, so each run says how many processors' worth of
work was done by processes that are not the benchmark's.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any

_LIBRARIES = ("amqp", "kombu", "psycopg2-binary", "pydantic", "sqlalchemy", "boto3")
_TICKS = os.sysconf("SC_CLK_TCK")


def facts(root: Path) -> dict[str, Any]:
    """The processor, the memory, the versions and the commit of the checkout at `root`."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "processors": os.cpu_count(),
        "memory_gb": round(memory / 1e9),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in _LIBRARIES},
        "commit": _git(root, "rev-parse", "--short", "HEAD"),
        "changed": bool(_git(root, "status", "--porcelain", "--", "atemporal", "services")),
    }


def load() -> list[float]:
    """The load averages over 1, 5 and 15 minutes."""
    return [round(one, 2) for one in os.getloadavg()]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _git(root: Path, *args: str) -> str:
    done = subprocess.run(["git", *args], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip()


class Busy:
    """How much processor time passed since it was made, and whose it was."""

    def __init__(self) -> None:
        """Begin to count."""
        self._at, self._all, self._own = monotonic(), _busy_s(), _own_s()

    def others(self) -> float:
        """Processors' worth of work by processes that are not this one's descendants."""
        passed = monotonic() - self._at
        foreign = (_busy_s() - self._all) - (_own_s() - self._own)
        return round(max(0.0, foreign / passed), 2) if passed else 0.0


def _busy_s() -> float:
    user, nice, system, _idle, _wait, interrupt, soft, *_ = (
        int(word) for word in Path("/proc/stat").read_text().split()[1:9]
    )
    return (user + nice + system + interrupt + soft) / _TICKS


def _own_s() -> float:
    """Processor time of this process and all below it, the ended ones included, in seconds."""
    ours, found = {os.getpid()}, 0
    stats = _stats()
    # A child's number may be smaller than its parent's, so once through is not enough.
    while len(ours) > found:
        found = len(ours)
        ours |= {pid for pid, (parent, _) in stats.items() if parent in ours}
    return sum(spent for pid, (_, spent) in stats.items() if pid in ours) / _TICKS


def _stats() -> Mapping[int, tuple[int, int]]:
    found: dict[int, tuple[int, int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            # It ended meanwhile: its parent has its time.
            continue
        found[int(path.parent.name)] = (int(fields[1]), sum(map(int, fields[11:15])))
    return found
