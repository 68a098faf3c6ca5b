"""What the model knows, for commands that have no time to import it.

Promise: the same values as the model's (a test compares them). They stand here once more because to
import it takes longer than all else that `atemporal show` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

MACHINE: Final[Mapping[str, Any]] = {
    "instance_types": [],
    "capacity_type": "on-demand",
    "subnets": [],
    "disk_gb": None,
}
JOB: Final[Mapping[str, Any]] = {
    "entrypoint": None,
    "delivery": "auto",
    "start_deadline_s": None,
    "backoff_s": 10,
    "priority": 0,
    "user": None,
    "workdir": None,
    "memory_mb": None,
    "shm_mb": None,
    "volumes": [],
    "gpus": None,
    "network": "bridge",
    "labels": {},
    "key": None,
}
"""Without those that `atemporal show` tells of in lines of their own."""

TOLD: Final = frozenset(
    {
        *(
            "image",
            "command",
            "env",
            "secrets",
            "secret_refs",
            "time",
            "lead",
            "delay_s",
            "timeout_s",
            "max_attempts",
        ),
        *("infra_retries", "retry_on", "no_retry_on", "machine", "ports", "max_cost"),
    }
)
"""The fields that `atemporal show` tells of in lines of their own."""

CLOCKS_AGREE_MS: Final = 1_000
"""How far a machine's clock may be off before its times are not its own, in milliseconds."""
SCHEDULE_LABEL: Final = "atemporal/schedule"
"""The label of the jobs of a recurring schedule."""
NEXT_SHOWN, MOST_NEXT = 5, 100
"""So many of a schedule's next fires are shown, and so many at most."""
FIRES_SHOWN, MOST_FIRES = 20, 1000
"""The same of the latest."""
MOST_OF_LIMIT: Final = 1_000_000
"""The largest concurrency limit."""
REFERENCE_SCHEMES: Final = ("ssm:", "secretsmanager:")
"""How a secret by reference begins."""
SCOPES: Final = ("submit", "read", "cancel", "admin")
"""What an API token may allow."""
DEAD_REASONS: Final = (
    *("invalid", "unreadable", "delivery_limit", "rejected", "expired", "maxlen", "unknown"),
)
"""Why a message is a dead letter."""
LETTER_STATES: Final = ("kept", "replaying", "replayed", "dropped")
"""What has been decided about a dead letter."""
LETTER_QUEUES: Final = (
    "atemporal.launch",
    "atemporal.reap",
    "atemporal.schedule",
    "atemporal.submit",
)
"""The queues to which a dead letter can be sent again."""
OS_FAMILIES: Final = ("amazon-linux", "debian", "fcos", "flatcar", "flatcar-ignition", "ubuntu")
"""What machines can boot."""
