"""Logs and metrics: every log field's and every metric's name is decided here.

Promise: a log line is one JSON object (or a readable line on a terminal) that carries job, attempt
and instance where there is one; no environment, token or message body is ever logged. No id is a
metric's label, so the number of series stays bounded.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog
from prometheus_client import Counter, Gauge, Histogram

from atemporal.errors import Unreadable
from atemporal.model import AttemptRef

TICKS = Counter("atemporal_loop_ticks", "Ticks of a daemon's loop", ["loop"])
LOOP_ERRORS = Counter("atemporal_loop_errors", "Ticks that failed", ["loop", "kind"])
LAST_TICK = Gauge(
    "atemporal_loop_last_tick_timestamp_seconds", "When a loop last ended a tick", ["loop"]
)
DUE_EMITTED = Counter("atemporal_due_emitted", "Due jobs handed to the broker")
OLDEST_DUE = Gauge("atemporal_oldest_due_seconds", "How late the oldest due job is")
SUBMITS = Counter("atemporal_submits", "Job submissions", ["via", "result"])
DEAD_LETTERS = Counter("atemporal_dead_letters", "Messages put into the dead letters", ["queue"])
RELAYED = Counter("atemporal_events_relayed", "Lifecycle events confirmed by the broker")
EVENTS_REFUSED = Counter(
    "atemporal_events_refused", "Lifecycle events that a listener's queue did not take"
)
STALE = Counter("atemporal_stale", "Messages and callbacks for a state that has passed", ["what"])
LAUNCHES = Counter("atemporal_launches", "RunInstances calls", ["result"])
LAUNCHES_BLOCKED = Gauge(
    "atemporal_launches_blocked",
    "Attempts without an instance, by what blocks them",
    ["blocked_on"],
)
RATE_LIMITER_TOKENS = Gauge(
    "atemporal_launch_rate_limiter_tokens", "RunInstances calls this process may make now"
)
RATE_LIMITER_RATE = Gauge(
    "atemporal_launch_rate_limiter_rate", "RunInstances calls a second that this process may make"
)
OFFERINGS_UNAVAILABLE = Gauge(
    "atemporal_offerings_unavailable",
    "Offerings in cooldown: no capacity, quota, or not authorized",
)
MACHINES_NOT_BOOTING = Gauge(
    "atemporal_machines_not_booting", "1 while the last machines that ended had never booted"
)
CIRCUIT_BREAKER_OPEN = Gauge(
    "atemporal_launch_circuit_breaker_open", "1 while EC2 refuses all calls of this process"
)
LAUNCH_SECONDS = Histogram("atemporal_launch_seconds", "Duration of RunInstances calls")
CALLBACKS = Counter("atemporal_callbacks", "Callbacks of machines", ["kind", "result"])
TERMINATIONS = Counter("atemporal_terminations", "Instances asked to end", ["cause", "result"])
ENDED = Counter("atemporal_attempts_ended", "Attempts ended", ["reason"])
NOTICES = Counter("atemporal_ec2_notices", "EC2's events from the queue", ["kind", "result"])
VOLUMES_DELETED = Counter("atemporal_volumes_deleted", "Leftover volumes", ["result"])
ORPHANED_VOLUMES = Gauge("atemporal_orphaned_volumes", "Free volumes that no attempt accounts for")
RECONCILIATION_ROWS = Gauge(
    "atemporal_reconciliation_rows", "Instances and attempts in the last audit", ["status"]
)
WORST_LEAK = Gauge(
    "atemporal_reconciliation_worst_leak_seconds",
    "The longest that an instance outlived its attempt",
)
INVARIANT_VIOLATIONS = Gauge(
    "atemporal_invariant_violations", "Rows that break a promise of the tables", ["invariant"]
)
WAITING = Gauge("atemporal_waiting", "Jobs and attempts in a phase, due ones only", ["phase"])
LONGEST_WAIT = Gauge("atemporal_longest_wait_seconds", "The longest of a phase", ["phase"])
LEAKED_INSTANCES = Gauge("atemporal_leaked_instances", "Instances that do not end")
LISTING_EMPTY = Gauge(
    "atemporal_listing_empty", "1 while EC2's listing shows none of the recorded instances"
)
LAST_SWEEP = Gauge(
    "atemporal_last_sweep_timestamp_seconds", "When this process last ended a sweep, 0 if never"
)
UNREADABLE = Counter(
    "atemporal_unreadable_rows", "Times a row was left out that this release can not read"
)
ORPHANED_INSTANCES = Gauge(
    "atemporal_orphaned_instances", "Instances that no attempt accounts for"
)
FOREIGN_INSTANCES = Gauge(
    "atemporal_foreign_instances", "Instances of another installation with our deployment's name"
)


def configure(service: str, *, log_format: str = "auto", level: str = "info") -> None:
    """Set up logging of this process: structlog's own lines and the standard library's alike."""
    readable = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())

    def named(_logger: Any, _method: str, line: dict[str, Any]) -> dict[str, Any]:
        return {**line, "service": service}

    shared: list[Any] = [
        named,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: Any = (
        structlog.dev.ConsoleRenderer() if readable else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # These write whole requests and messages at debug, and a line a call at info.
    for noisy in ("boto3", "botocore", "urllib3", "amqp", "kombu", "alembic", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )


def logger(name: str) -> Any:
    """Return a logger for one module or loop; made before `configure`, it follows it all the same."""
    return structlog.get_logger(part=name)


def tell_unreadable(error: Unreadable) -> None:
    """Log and count a row that was left out; the others were read."""
    UNREADABLE.inc()
    logger("store").error("left out", error=str(error), job=error.job, attempt=error.attempt)


def log_context(ref: AttemptRef, instance_id: str | None = None) -> dict[str, Any]:
    """The fields every line about an attempt carries."""
    fields: dict[str, Any] = {"job": str(ref.job_id), "attempt": ref.number}
    if instance_id:
        fields["instance"] = instance_id
    return fields
