"""Logs: how they are written, and the names of the fields that say what a line is about.

Promise: a log line is one JSON object (or a readable line on a terminal) that carries job, attempt
and instance where there is one; no environment, token or message body is ever logged. What others have
sent begins no line of its own, and steers no terminal. What is logged and counted alike for every
process is here too.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from atemporal.absent import absent
from atemporal.errors import Unreadable
from atemporal.metrics import counter
from atemporal.model import AttemptRef
from atemporal.visible import visible

# With it structlog draws tracebacks, for 5 MB in each process.
with absent("rich"):
    import structlog

UNREADABLE = counter(
    "atemporal_unreadable_rows_total",
    "Times that a row was left out because this release can not read it.",
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
    rendered: list[Any] = (
        [_visible, structlog.dev.ConsoleRenderer()]
        if readable
        else [structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # These write whole requests and messages at debug, and a line a call at info.
    for noisy in ("boto3", "botocore", "urllib3", "amqp", "kombu", "alembic", "httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )


def _visible(_logger: Any, _method: str, line: dict[str, Any]) -> dict[str, Any]:
    # A traceback has lines; JSON escapes by itself.
    return {
        name: visible(value, "\n" if name in ("exception", "stack") else "")
        if isinstance(value, str)
        else value
        for name, value in line.items()
    }


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
