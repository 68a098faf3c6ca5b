"""How long things take on the twin; EC2 takes longer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """Times in seconds.

    `pending_s` passes before an instance is running, `boot_s` from there until its user-data is
    executed, `shutdown_s` from the end of its last process until it is terminated. A machine that
    is still there `kill_after_s` after it was told to shut down is killed.
    """

    pending_s: float = 0.0
    boot_s: float = 0.0
    shutdown_s: float = 0.0
    kill_after_s: float = 10.0

    def boot_of(self, instance_id: str) -> float:
        """How long this instance boots; a pace of another kind draws it from a distribution."""
        return self.boot_s
