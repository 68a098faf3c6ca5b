"""Somebody with a recurring schedule, who pauses and edits it, and pauses it for good at the end."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

from atemporal.model.schedule import parse_schedule
from atemporal.store import schedules
from tests.sim.database import Ground
from tests.sim.tasks import Task

NAME = "often"
# What may be asked: the method, and the path after that of the schedule.
PAUSE, RESUME = ("POST", "/pause"), ("POST", "/resume")
EDIT = ("PATCH", "")


@dataclass
class Planner:
    """What it wants, what it has asked, what it was told."""

    fields: dict[str, Any]
    asked: Task | None = None
    asked_for: tuple[str, str] = RESUME
    paused: bool = False
    edits: int = 0

    @classmethod
    def of(cls, rng: random.Random) -> Planner:
        """Someone with a random schedule of a fire in every ten minutes."""
        minutes = ",".join(str(minute + rng.randrange(10)) for minute in range(0, 60, 10))
        job = {"image": "busybox", "timeout_s": rng.choice([60, 600]), "infra_retries": 3}
        return cls(
            {
                "name": NAME,
                "cron": f"{minutes} * * * *",
                "zone": rng.choice(["UTC", "America/Sao_Paulo", "Asia/Kathmandu"]),
                "overlap": rng.choice(["allow", "skip", "cancel"]),
                "catch_up": rng.choice(["skip", "one", "all"]),
                "job": job,
            }
        )

    def make(self, ground: Ground) -> None:
        """Make it, before anything else happens."""
        with ground.engine.begin() as tx:
            schedules.create(tx, parse_schedule(self.fields))

    def next(self, rng: random.Random, *, last: bool) -> tuple[tuple[str, str], dict[str, Any]]:
        """What to ask now: method and path, and what the route is given; `last`: to pause it."""
        begun = RESUME if self.paused else rng.choice([PAUSE, EDIT])
        wanted = PAUSE if last else begun
        # What is asked for may be done and not answered.
        self.paused = False
        given: dict[str, Any] = {"name": NAME, "actor": "planner"}
        if wanted is EDIT:
            self.edits += 1
            changes = {"job": {"labels": {"edit": str(self.edits)}}}
            given |= {"body": json.dumps(changes).encode(), "_allowed": None}
        return wanted, given

    def heard(self) -> None:
        """Take in the answer, if there is one."""
        if self.asked is None or not self.asked.done:
            return
        if self.asked_for == PAUSE and self.asked.result is not None:
            self.paused = self.asked.result[0] < 300
        self.asked = None
