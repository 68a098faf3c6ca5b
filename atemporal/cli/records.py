"""Jobs, attempts and settings as the CLI shows them to programs, and what it hides of them.

Promise: the values of an environment, the callback keys and the passwords in URLs are in no output,
unless the caller asks with `--reveal`, where that exists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from atemporal.job_view import AttemptView, EventView, JobView, LogTail, log_text
from atemporal.model import Event, Job, Launch

MASK = "***"
# To the last @, because a password that was not escaped may hold some.
_URL_PASSWORD = re.compile(r"(?P<before>://[^/@:]*:).*(?=@)")
_QUERY_PASSWORD = re.compile(r"(?P<before>[?&](?:ssl)?password=)[^&]*")
_KEY = re.compile(r"(?P<before>[^,:]+:)[^,]*")


class AttemptRecord(AttemptView):
    """An attempt with its launch and the end of its output."""

    launch: Launch
    log_tail: LogTail = None


class JobRecord(JobView):
    """A job; `attempts` are its `instances` with all that is known of them."""

    attempts: tuple[AttemptRecord, ...]


class EventRecord(EventView):
    """A transition, under the first name of its number as well."""

    id: int


def of_job(job: Job, *, reveal: bool = False) -> dict[str, Any]:
    """A job with its attempts, ready for JSON."""
    env = masked_env(job.spec.env, reveal=reveal)
    attempts = tuple(map(AttemptRecord.of, job.attempts))
    return JobRecord.of(job, env=env, attempts=attempts).model_dump(mode="json")


def of_event(event: Event) -> dict[str, Any]:
    """One transition, ready for JSON."""
    return EventRecord.of(event).model_dump(mode="json")


def of_ending(job: Job) -> dict[str, Any]:
    """A job by its end alone: what it printed, how it ended, where it ran."""
    shown = {"id", "image", "state", "outcome", "exit_code", "instances"}
    tail = log_text(job.attempts[-1].log_tail) if job.attempts else None
    return {**JobView.of(job).model_dump(mode="json", include=shown), "log_tail": tail}


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
