"""A recurring schedule in the crash matrix: made, edited and paused, whatever dies meanwhile.

Promise: it is asked for until it is answered, as a person would. Its fire is minutes away, so that its
job is made ahead, made anew by the edit, and taken back by the pause, and no machine is launched.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx

from atemporal.model import Job
from atemporal.model.schedule import LABEL
from atemporal.states import JobState, Outcome
from atemporal.store import listing, schedules
from atemporal.store.database import Database

# Less than the horizon within which a fire is decided, more than any lead and any case.
AHEAD = timedelta(minutes=12)


@dataclass
class Appointment:
    """One schedule; `poll` does what is to be done next."""

    api_url: str
    database: Database
    name: str = field(default_factory=lambda: f"s-{uuid4().hex}")
    at: datetime = field(default_factory=lambda: datetime.now(UTC) + AHEAD)
    step: int = 0

    def poll(self) -> bool:
        """Go on as far as possible; tell whether it is paused and its jobs are taken back."""
        steps = (
            lambda: self._ask("POST", "", 201, 409, body=self._fields()),
            lambda: self._has_one_job({}),
            lambda: self._ask("PATCH", f"/{self.name}", 200, body={"job": {"labels": {"n": "2"}}}),
            lambda: self._has_one_job({"n": "2"}),
            lambda: self._ask("POST", f"/{self.name}/pause", 200),
            lambda: not self._open(),
        )
        while self.step < len(steps) and steps[self.step]():
            self.step += 1
        return self.step == len(steps)

    def check(self) -> None:
        """Look at what is left of it.

        Raises:
            AssertionError: it is not two jobs that were taken back, and a fire that may be made again.
        """
        with self.database.begin() as tx:
            schedule = schedules.get(tx, self.name)
            assert schedules.latest_fires(tx, schedule, limit=10) == []
        assert schedule.next_fire_at == self.at.replace(second=0, microsecond=0)
        jobs = self._jobs()
        assert [job.outcome for job in jobs] == [Outcome.CANCELLED] * 2, jobs
        assert [job.attempts for job in jobs] == [()] * 2, jobs

    def _fields(self) -> dict[str, Any]:
        job = {"image": "busybox:1.36", "command": ["true"]}
        return {"name": self.name, "cron": f"{self.at.minute} * * * *", "job": job}

    def _ask(self, method: str, path: str, *good: int, body: dict[str, Any] | None = None) -> bool:
        try:
            answer = httpx.request(method, f"{self.api_url}/schedules{path}", json=body, timeout=5)
        except httpx.TransportError:
            return False
        assert answer.status_code in good, answer.text
        return True

    def _has_one_job(self, labels: dict[str, str]) -> bool:
        open_ = self._open()
        assert len(open_) <= 1, open_
        return [job.spec.labels for job in open_] == [{**labels, LABEL: self.name}]

    def _open(self) -> list[Job]:
        return [job for job in self._jobs() if job.state is not JobState.FINISHED]

    def _jobs(self) -> list[Job]:
        with self.database.begin() as tx:
            return listing.page(tx, limit=10, labels={LABEL: self.name}).jobs
