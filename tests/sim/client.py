"""Somebody who wants one job, asks until it is answered, and may change its mind."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from tests.sim.tasks import Task
from tests.sim.world import DENIED


@dataclass
class Client:
    """What it wants, what it has asked, what it was told."""

    key: str
    fields: dict[str, Any]
    by_message: bool
    asked: Task | None = None
    again_at: datetime | None = None
    job_id: UUID | None = None
    cancelling: Task | None = None
    cancelled: bool = False

    @classmethod
    def of(cls, number: int, rng: random.Random) -> Client:
        """Someone with a random job."""
        fields = {
            "image": "busybox",
            "ports": [],
            "delay_s": rng.choice([0, 0, 0, 30, 130, 600]),
            "lead": rng.choice(["auto", "auto", 0, 60]),
            "timeout_s": rng.choice([60, 600]),
            "max_attempts": rng.choice([1, 2, 3]),
            "infra_retries": rng.choice([0, 1, 3]),
            "backoff_s": rng.choice([0, 10, 60]),
            "labels": {DENIED: "yes"} if number == 1 else {},
        }
        if (fields["timeout_s"], fields["backoff_s"]) in ((60, 60), (600, 0)):
            # Short beside what a launch, a retry or an outage can take. No draw of its own: what else
            # a seed gives stays as it is.
            fields["start_deadline_s"] = 240
        return cls(f"order-{number}", fields, rng.random() < 0.5)

    def alike(self, number: int) -> Client:
        """Someone else who wants the same."""
        return Client(f"order-{number}", {**self.fields}, self.by_message)
