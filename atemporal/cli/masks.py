"""What the CLI hides: the values of environments, and passwords in URLs.

Promise: they are in no output, unless the caller asks with `--reveal`, where that exists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MASK = "***"
# To the last @, because a password that was not escaped may hold some.
_URL_PASSWORD = re.compile(r"(?P<before>://[^/@:]*:).*(?=@)")
_QUERY_PASSWORD = re.compile(r"(?P<before>[?&](?:ssl)?password=)[^&]*")


def masked_env(env: Mapping[str, str], *, reveal: bool) -> dict[str, str]:
    """An environment without its values."""
    return {name: value if reveal else MASK for name, value in env.items()}


def masked_job(job: Mapping[str, Any], *, reveal: bool = False) -> dict[str, Any]:
    """A job as the API sends it, without the values of its environment."""
    if reveal:
        return dict(job)
    return {**job, "env": masked_env(job["env"], reveal=False), "payload": MASK}


def variables_of(job: Mapping[str, Any], *, reveal: bool) -> list[tuple[str, str]]:
    """A row for each variable of a job as the API sends it; of a secret the name, or the reference."""
    return [
        *(
            ("env", f"{name}={value}")
            for name, value in masked_env(job["env"], reveal=reveal).items()
        ),
        *(("secret", name) for name in job.get("secrets", {})),
        *(("secret", f"{name}={where}") for name, where in job.get("secret_refs", {}).items()),
    ]


def masked_url(url: str) -> str:
    """A URL without its password."""
    return _QUERY_PASSWORD.sub(rf"\g<before>{MASK}", _URL_PASSWORD.sub(rf"\g<before>{MASK}", url))
