"""What is to go wrong with one machine, and the record of all that did go wrong.

Promise: a mishap is decided once and is on disk before it strikes, so it strikes whether or not the
twin lives. A fault is recorded when it has done something, by whoever did it: the twin, the machine
or the machine's `curl`. A lasting one (hidden, stale, slow-boot, no-network, ...) is recorded once
an instance; a callback that was doubled, forged or swallowed is recorded each time.

    instances/<i-id>/mishaps.json    the machine's mishaps by their kinds; absent: none
    instances/<i-id>/<kind>.struck   the lasting ones that have been recorded
    faults/injected.jsonl            the record: one line a fault, appended, never rewritten
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from atemporal.twin.books import replace_file

RECENT = 10_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Mishap:
    """One thing that goes wrong with one machine, from `begins` (seconds since the epoch).

    `seconds` is how long it takes; None is for ever.
    """

    kind: str
    rule: str
    begins: float
    seconds: float | None = None
    code: str = ""

    @property
    def ends(self) -> float:
        """When it is over."""
        return float("inf") if self.seconds is None else self.begins + self.seconds

    def strikes(self, now: float) -> bool:
        """Whether it has begun and is not over."""
        return self.begins <= now < self.ends


def read(directory: Path) -> dict[str, Mishap]:
    """The mishaps of the machine in this directory, by their kinds."""
    try:
        content = json.loads((directory / "mishaps.json").read_bytes())
    except FileNotFoundError:
        return {}
    return {kind: Mishap(**mishap) for kind, mishap in content.items()}


def write(directory: Path, mishaps: dict[str, Mishap]) -> None:
    """Decide on the mishaps of the machine in this directory."""
    directory.mkdir(exist_ok=True)
    content = {kind: asdict(mishap) for kind, mishap in mishaps.items()}
    replace_file(directory / "mishaps.json", content)


def record(directory: Path, mishap: Mishap, *, once: bool = False) -> None:
    """Record that a mishap has struck the machine in this directory."""
    if once:
        try:
            (directory / f"{mishap.kind}.struck").touch(exist_ok=False)
        except FileExistsError:
            return
    Journal(directory.parents[1]).add(mishap.kind, mishap.rule, instance=directory.name)


def hang(directory: Path) -> None:
    """Hang, if the machine in this directory is to hang when it powers off."""
    hanging = read(directory).get("hangs")
    if hanging is not None:
        record(directory, hanging, once=True)
        threading.Event().wait(hanging.seconds)


class Journal:
    """The record of a twin's faults; any process may add to it, at any time."""

    def __init__(self, directory: Path) -> None:
        """Know the record of the twin in this directory."""
        self._path = directory / "faults/injected.jsonl"
        self._read_up_to = 0
        self._counts: Counter[str] = Counter()
        self._recent: deque[dict[str, Any]] = deque(maxlen=RECENT)
        self._lock = threading.Lock()

    def add(self, kind: str, rule: str, *, call: str = "", instance: str = "") -> None:
        """Record one fault."""
        entry = {"at": time.time(), "kind": kind, "rule": rule, "call": call, "instance": instance}
        _log.info("fault %s by rule %s: %s", kind, rule, call or instance)
        # One write to a file that is open for appending: lines of several processes do not mix.
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(file, (json.dumps(entry) + "\n").encode())
        finally:
            os.close(file)

    def counts(self) -> dict[str, int]:
        """How many faults of each kind there have been."""
        with self._lock:
            self._catch_up()
            return dict(sorted(self._counts.items()))

    def recent(self) -> list[dict[str, Any]]:
        """The last faults, oldest first: time, kind, rule, call or instance."""
        with self._lock:
            self._catch_up()
            return list(self._recent)

    def _catch_up(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read_up_to)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read_up_to += len(line)
                entry = json.loads(line)
                self._counts[entry["kind"]] += 1
                self._recent.append(entry)
