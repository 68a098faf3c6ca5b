"""EC2's codes for how an instance came to its end, and what they mean for its attempt.

Promise: pure; the only place that knows these codes. A code that is not here means nothing in
particular: the instance is gone, and that is all.
Source: EC2 API reference, type StateReason (version 2016-11-15); an error code of RunInstances that is
found out after the launch comes back with `Server.` or `Client.` before it.
"""

from __future__ import annotations

from typing import Final

from atemporal.states import BlockedReason

SHORTAGES: Final = {
    "Server.InsufficientInstanceCapacity": BlockedReason.CAPACITY,
    "Client.VolumeLimitExceeded": BlockedReason.QUOTA,
}
"""RunInstances was granted, and the room or the account's limit was found wanting afterwards."""


def is_spot_interruption(code: str | None) -> bool:
    """Whether EC2 took a spot instance back: all codes for that, also new ones, begin alike."""
    return code is not None and code.partition(".")[2].startswith("SpotInstance")


def is_ec2s_fault(code: str | None) -> bool:
    """Whether the end came from EC2's side: `Server.` is its own word for that."""
    return code is not None and code.startswith("Server.")


def is_own_shutdown(code: str | None) -> bool:
    """Whether the instance's own operating system powered it off."""
    return code == "Client.InstanceInitiatedShutdown"
