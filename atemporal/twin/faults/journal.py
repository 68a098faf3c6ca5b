"""The record of every fault that was injected on a twin.

Promise: it outlives the twin, any process may add to it at any time, and nothing in it is ever
rewritten.

    faults/injected.jsonl    one line a fault: when, kind, rule, call, instance
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

RECENT = 10_000
_log = logging.getLogger(__name__)


class Journal:
    """The injected faults of the twin in a directory."""

    def __init__(self, directory: Path) -> None:
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
        """The last faults, oldest first."""
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
