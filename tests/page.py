"""What there is to see on the page: jobs in all states, a log, schedules, a limit, dead letters.

Promise: markup is wherever somebody else may write: labels, commands, keys, output, messages, names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from uuid import UUID

import httpx
from sqlalchemy import text

from atemporal.model import AttemptRef
from atemporal.store import api_tokens, concurrency_limits, dead_letters, jobs
from services.api.ui.visitor import COOKIE
from tests.api import Api, bearer, token_of
from tests.letters import refused

MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'&amp;"
"""Is text, wherever it is shown."""

ALL = ("submit", "read", "cancel")
ORIGIN = {"Sec-Fetch-Site": "same-origin"}
"""What a browser says of a form that a page of ours sends."""

# When each phase of the attempt began, in seconds before now.
_PHASES = {
    "created_at": 148,
    "launched_at": 143,
    "booted_at": 104,
    "ready_at": 71,
    "running_at": 54,
    "started_at": 54,
}
_HOSTILE = text(
    "UPDATE jobs SET spec = jsonb_set(spec, '{labels,team}', to_jsonb(CAST(:markup AS text)))"
    " WHERE id = :job"
)


@dataclass(frozen=True)
class Seen:
    """The ids of what was made."""

    scheduled: UUID
    running: AttemptRef
    failed: AttemptRef
    letter: UUID


def seed(api: Api) -> Seen:
    """Make one of everything."""
    hostile = {"labels": {"team": "reports"}, "command": ["sh", "-c", MARKUP], "key": MARKUP}
    scheduled = api.submitted(
        image="registry.example.com/reports/nightly:1.4.2",
        delay_s=7200,
        env={"CUSTOMER": MARKUP, "PASSWORD": "hunter2"},
        **hostile,
    )
    # As an earlier release may have taken it, or a hand have written it.
    with api.database.begin() as tx:
        tx.execute(_HOSTILE, {"job": scheduled, "markup": MARKUP})
    failed = api.running(claim="c-2", image="nginx:1.9", labels={"team": "web"})
    assert api.exit(failed, exit_code=3).status_code == 204
    running = api.running(image="busybox:1.36", labels={"team": "data", "kind": "nightly"})
    wrote(api, running, f"it begins\n{MARKUP}\nzwölf \u202e done\n".encode(), start=0)
    aged(api, running, _PHASES)
    nightly = {"name": "nightly", "cron": "0 2 * * *", "zone": "America/Sao_Paulo"}
    made = api.http.post(
        "/schedules", json={**nightly, "job": {"image": "busybox", "env": {"S": "hunter2"}}}
    )
    assert made.status_code == 201, made.text
    with api.database.begin() as tx:
        concurrency_limits.put(tx, "team=*", 5, actor=MARKUP, instance_type="c5.large")
        dead_letters.keep(tx, [refused(b'{"env": "hunter2"}', {"image": MARKUP})])
        letter = dead_letters.listing(tx, limit=1).letters[0].id
    return Seen(scheduled, running, failed, letter)


def wrote(api: Api, ref: AttemptRef, data: bytes, *, start: int) -> None:
    """Send a chunk of output, as the machine does."""
    path = f"/jobs/{ref.job_id}/callback/log?start={start}"
    assert api.http.post(path, content=data, headers=bearer(token_of(ref))).status_code == 204


def aged(api: Api, ref: AttemptRef, seconds: dict[str, int]) -> None:
    """Let an attempt's phases have begun so many seconds ago."""
    values = ", ".join(f"{name} = now() - interval '{ago} s'" for name, ago in seconds.items())
    with api.database.begin() as tx:
        tx.execute(
            text(f"UPDATE attempts SET {values} WHERE job_id = :job AND number = :number"),
            {"job": ref.job_id, "number": ref.number},
        )


def token(api: Api, name: str, *scopes: str) -> str:
    """Make an API token."""
    with api.database.begin() as tx:
        return api_tokens.create(tx, name, scopes)


@contextmanager
def signed_in(api: Api, secret: str) -> Iterator[httpx.Client]:
    """A browser that has signed in with a token."""
    base = api.http.base_url
    with httpx.Client(base_url=base, trust_env=False, timeout=30, follow_redirects=True) as client:
        answer = client.post("/ui/sign-in", data={"token": secret, "next": ""}, headers=ORIGIN)
        assert COOKIE in client.cookies, answer.text
        yield client


def form_token(page: str) -> str:
    """The word that a page's forms carry."""
    (found,) = set(re.findall(r'name="form_token" value="(\w+)"', page))
    return str(found)


class Page(HTMLParser):
    """A page taken to pieces: its elements, and its text."""

    def __init__(self, page: str) -> None:
        """Read it."""
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag in ("td", "dd", "p"):
            self.text += " "

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.text += data

    def addresses(self) -> list[str]:
        """All that the page leads to or loads."""
        names = ("href", "src", "action", "data-log")
        return [
            value for _, attrs in self.elements for name, value in attrs.items() if name in names
        ]


def state_of(api: Api, job_id: UUID) -> str:
    """A job's outcome, or its state."""
    with api.database.begin() as tx:
        job = jobs.get(tx, job_id)
    return str(job.outcome or job.state)
