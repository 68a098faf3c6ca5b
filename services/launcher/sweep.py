"""The sweep: launches what the tables show to be left over.

Promise: an attempt that a crash, a lost message or a passing cause left without its instance is taken
again as soon as it may be asked for. While EC2 refuses this process the sweep sends the half-open probe.
"""

from __future__ import annotations

from services.launcher.calls import Calls
from services.launcher.launcher import Launcher

_LEAST_PAUSE_S = 0.05


class SweepLoop:
    """Launches what the tables show to be left over."""

    name = "launch-sweep"

    def __init__(self, launcher: Launcher, *, interval_s: float) -> None:
        """Take the steps."""
        self._launcher = launcher
        self._interval_s = interval_s
        self._calls = Calls(launcher)

    def tick(self) -> float:
        """Look once; look again when the first of those that wait may be asked for."""
        self._calls.make(self._launcher.unfinished())
        return max(_LEAST_PAUSE_S, self._launcher.rest_s(self._interval_s))

    def reset(self) -> None:
        """Leave the calls that are not under way yet to the next look."""
        self._calls.cancel()
