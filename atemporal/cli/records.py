"""Jobs, attempts and settings as the CLI tells them to programs, and what it hides of them.

Promise: the values of an environment, the callback keys and the passwords in URLs are in no answer,
unless the caller asks with `--reveal`, where that exists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from atemporal.clock import format_utc
from atemporal.image import familiar
from atemporal.model import Attempt, Event, Job

MASK = "***"
# To the last @, because a password that was not escaped may hold some.
_URL_PASSWORD = re.compile(r"(?P<before>://[^/@:]*:).*(?=@)")
_QUERY_PASSWORD = re.compile(r"(?P<before>[?&](?:ssl)?password=)[^&]*")
_KEY = re.compile(r"(?P<before>[^,:]+:)[^,]*")


def of_job(job: Job, *, reveal: bool = False) -> dict[str, Any]:
    """A job with its attempts, ready for JSON."""
    spec = job.spec.model_dump(mode="json", exclude={"image", "env", "run_at", "delay_s"})
    return {
        "id": str(job.id),
        "image": familiar(job.spec.image),
        "state": job.state,
        "outcome": job.outcome,
        "reason": job.reason,
        "exit_code": job.exit_code,
        **spec,
        "env": masked_env(job.spec.env, reveal=reveal),
        "time": format_utc(job.run_at),
        "due_at": format_utc(job.due_at),
        "created_at": format_utc(job.created_at),
        "finished_at": format_utc(job.finished_at) if job.finished_at else None,
        "instances": [_instance(one) for one in job.attempts],
        "attempts": [of_attempt(one) for one in job.attempts],
    }


def of_attempt(attempt: Attempt) -> dict[str, Any]:
    """An attempt, ready for JSON; its log is there as text, with what is not UTF-8 replaced."""
    record = attempt.model_dump(mode="json", exclude={"job_id", "log_tail", "claim"})
    return {**record, "log_tail": log_text(attempt)}


def of_event(event: Event) -> dict[str, Any]:
    """One transition, ready for JSON."""
    return event.model_dump(mode="json", exclude={"job_id"})


def of_ending(job: Job) -> dict[str, Any]:
    """A job by its end alone: what it printed, how it ended, where it ran."""
    return {
        "id": str(job.id),
        "image": familiar(job.spec.image),
        "state": job.state,
        "outcome": job.outcome,
        "exit_code": job.exit_code,
        "log_tail": log_text(job.attempts[-1]) if job.attempts else None,
        "instances": [_instance(one) for one in job.attempts],
    }


def log_text(attempt: Attempt) -> str | None:
    """The end of an attempt's output as text; None when there is none."""
    return None if attempt.log_tail is None else attempt.log_tail.decode(errors="replace")


def masked_env(env: Mapping[str, str], *, reveal: bool) -> dict[str, str]:
    """An environment without its values."""
    return {name: value if reveal else MASK for name, value in env.items()}


def masked_setting(value: Any) -> Any:
    """A setting's value without the secrets in it."""
    if isinstance(value, SecretStr):
        text = value.get_secret_value()
        return masked_url(text) if "://" in text else _KEY.sub(rf"\g<before>{MASK}", text)
    if isinstance(value, str):
        return masked_url(value)
    return list(value) if isinstance(value, tuple) else value


def masked_url(url: str) -> str:
    """A URL without its password."""
    return _QUERY_PASSWORD.sub(rf"\g<before>{MASK}", _URL_PASSWORD.sub(rf"\g<before>{MASK}", url))


def _instance(attempt: Attempt) -> dict[str, Any]:
    return {
        "id": attempt.number,
        "aws_id": attempt.instance_id,
        "dns": attempt.public_dns,
        "ip": attempt.public_ip,
    }
