"""The chaos run's governor: a concurrency limit that is set, changed, and removed at its end.

Now and then the whole installation is paused for some seconds.
"""

from __future__ import annotations

import random
import threading
import time

from tests.chaos.crew import Crew
from tests.chaos.fleet import Fleet

TEAM_LABEL, TEAM = "team", "shared"
LIMIT = f"{TEAM_LABEL}={TEAM}"
# Few enough that jobs have to wait, enough that all of them end in the time of a chaos run.
MOST = (2, 4)
# The judge knows for how long nobody can say which of two limits held: a change must be rarer.
CHANGE_EVERY_S = (25, 50)
PAUSED_S = (2, 5)


class Governor(Crew):
    """Sets one limit for all jobs of one team, and another one now and then."""

    def __init__(self, fleet: Fleet, rng: random.Random, *, seconds: float) -> None:
        """Nothing is set yet."""
        super().__init__()
        self._fleet = fleet
        self._rng = rng
        self._seconds = seconds
        self.pauses = 0
        self.add("governor", self._govern)

    def _govern(self) -> None:
        end = time.monotonic() + self._seconds
        rest = threading.Event()
        while (left := end - time.monotonic()) > 0:
            most = self._rng.randint(*MOST)
            self._fleet.ask("PUT", "/limits", {200, 201}, {"name": LIMIT, "most": most})
            rest.wait(min(left, self._rng.uniform(*CHANGE_EVERY_S)))
            # 409: it was done, and the answer was lost.
            self._fleet.ask("PUT", "/pause", {200, 409}, {"reason": "a governor's mood"})
            rest.wait(self._rng.uniform(*PAUSED_S))
            self._fleet.ask("DELETE", "/pause", {200, 409})
            self.pauses += 1
        # Its answer may be lost, and then there is none to remove.
        self._fleet.ask("DELETE", f"/limits?name={TEAM_LABEL}%3D{TEAM}", {200, 404})
