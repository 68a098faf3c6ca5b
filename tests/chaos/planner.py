"""The chaos run's planner: recurring schedules, made, changed, and paused at its end."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.crew import Crew
from tests.chaos.exits import SAY
from tests.chaos.fleet import Fleet

# A job may be longer than the minute between two fires, by how much its machine takes to boot.
RUNS_S = {"allow": 3, "skip": 45, "cancel": 45}


@dataclass
class Planned:
    """What the planner was told; read it after `join`. `runs` are the keys of what it ran by hand."""

    names: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    pauses: int = 0
    edits: int = 0


class Planner(Crew):
    """One schedule for each overlap rule, each due every minute."""

    def __init__(self, fleet: Fleet, runs: Path, rng: random.Random, *, seconds: float) -> None:
        """Nothing is made yet. Its containers write to the files in `runs` with the schedules' names."""
        super().__init__()
        self.planned = Planned()
        self._fleet = fleet
        self._runs = runs
        self._rng = rng
        self._seconds = seconds
        self.add("planner", self._plan)

    def _plan(self) -> None:
        end = time.monotonic() + self._seconds
        for overlap, seconds in RUNS_S.items():
            name = f"every-minute-{overlap}"
            self._fleet.ask(
                "POST", "/schedules", {201, 409}, self._schedule(name, overlap, seconds)
            )
            self.planned.names.append(name)
        pause = threading.Event()
        while (left := end - time.monotonic()) > 0:
            pause.wait(min(left, self._rng.uniform(5, 20)))
            self._change(self._rng.choice(self.planned.names))
        for name in self.planned.names:
            self._fleet.ask("POST", f"/schedules/{name}/pause", {200})

    def _schedule(self, name: str, overlap: str, seconds: int) -> dict[str, Any]:
        start, end = (SAY.format(what=what, path=self._runs / name) for what in ("start", "end"))
        job = {
            "image": "busybox:1.36",
            "command": ["sh", "-c", f"{start}; sleep {seconds} || exit; {end}"],
            "timeout_s": 120,
            "infra_retries": 30,
            "backoff_s": 1,
        }
        return {
            "name": name,
            "cron": "* * * * *",
            "zone": self._rng.choice(["UTC", "America/Sao_Paulo", "Asia/Kathmandu"]),
            "overlap": overlap,
            "catch_up": "all",
            "job": job,
        }

    def _change(self, name: str) -> None:
        match self._rng.choice(["pause", "edit", "run"]):
            case "pause":
                self._fleet.ask("POST", f"/schedules/{name}/pause", {200})
                self._fleet.ask("POST", f"/schedules/{name}/resume", {200})
                self.planned.pauses += 1
            case "edit":
                labels = {"edit": str(self.planned.edits)}
                self._fleet.ask("PATCH", f"/schedules/{name}", {200}, {"job": {"labels": labels}})
                self.planned.edits += 1
            case "run":
                key = f"{name}-by-hand-{len(self.planned.runs)}"
                self._fleet.ask("POST", f"/schedules/{name}/run", {200, 201}, {"key": key})
                self.planned.runs.append(key)
