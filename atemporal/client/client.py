"""The calls of the API, one method each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from typing import Any, cast
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import (
    HTTPRedirectHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    build_opener,
)

from atemporal.api_url import DEFAULT_URL
from atemporal.client.shapes import (
    Event,
    JobDetail,
    JobPage,
    LineResult,
    Schedule,
    ScheduleDetail,
    SchedulePage,
)
from atemporal.errors import (
    AtemporalError,
    Conflict,
    Denied,
    Invalid,
    InvalidLines,
    NotFound,
    Refused,
    Unavailable,
    Unknown,
)

PAGE = 1000
"""The most jobs that the API sends at once."""
BATCH = 10_000
"""The most jobs that the API takes at once, of no more than `BATCH_BYTES` together."""
BATCH_BYTES = 16 * 1024 * 1024

_TIMEOUT_S = 30.0
_LINES = "application/x-ndjson"
# A response is as large as a page of jobs with full environments at most.
_LARGEST = 64 * 1024 * 1024


_LOOK = (
    "nobody knows whether it was done: look first; only a cancel, and a submit with a key, may be "
    "repeated without looking"
)


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Client:
    """The API at `url`; `token` is an API token, not needed for one on loopback.

    `timeout_s` is how long an answer may be silent.
    """

    def __init__(
        self, url: str = DEFAULT_URL, token: str | None = None, *, timeout_s: float = _TIMEOUT_S
    ) -> None:
        """Connect to nothing yet.

        Raises:
            Invalid: the URL or the token can not be one.
        """
        host = _host(url)
        if host is None:
            raise Invalid({"url": f"{url!r} is no URL; write https://HOST, or http://HOST:PORT"})
        if token is not None and not (
            token.isascii() and token.isprintable() and " " not in token
        ):
            raise Invalid({"token": "an API token is ASCII without spaces, like atp_..."})
        self.url = url.rstrip("/")
        self.notice = ""
        """What the API has to say to everybody; known after a call."""
        self._headers = {"Accept": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._timeout_s = timeout_s
        self._opener = _opener(direct=host in ("localhost", "127.0.0.1", "::1"))

    def submit(
        self, fields: Mapping[str, Any], *, key: str | None = None
    ) -> tuple[JobDetail, bool]:
        """Submit a job by the fields of the API's schema; return it, and whether it is new.

        With `key` the same submit may be repeated: it gives the same job.

        Raises:
            Invalid: a field is wrong; `fields` has each.
            Conflict: the key has another job.
            Unknown: nobody knows whether it arrived.
        """
        # In the body, because a header can not carry every text.
        sent = {**fields, **({} if key is None else {"key": key})}
        status, body = self._call("POST", "/jobs", json.dumps(sent).encode())
        return cast(JobDetail, _object(body)), status == 201

    def submit_lines(
        self, lines: Sequence[bytes], *, skip_errors: bool = False
    ) -> list[LineResult]:
        """Submit up to `BATCH` jobs at once, each a JSON object as `submit` takes it.

        Returns what became of each. All are made or none, but with `skip_errors` the good ones. When
        each has a key, the same call may be repeated: it makes nothing twice.

        Raises:
            InvalidLines: some are wrong or have the key of another job, and none was made.
            Unknown: nobody knows whether it arrived.
        """
        path = f"/jobs:batch?on_error={'skip' if skip_errors else 'refuse'}"
        body = b"".join(line + b"\n" for line in lines)
        _, sent = self._call("POST", path, body, _LINES)
        return [cast(LineResult, _object(line)) for line in sent.splitlines()]

    def jobs(
        self,
        *,
        states: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        limit: int = PAGE,
        after: str | None = None,
        newest_first: bool = False,
    ) -> JobPage:
        """One page of jobs that are in one of the states or outcomes and have all the labels.

        Raises:
            NotFound: there is no job `after`.
        """
        query: list[tuple[str, str]] = [("limit", str(limit))]
        query += [("state", one) for one in states]
        query += [("label", f"{name}={value}") for name, value in (labels or {}).items()]
        query += [("after", after)] if after else []
        query += [("order", "newest")] if newest_first else []
        return cast(JobPage, self._get(f"/jobs?{urlencode(query)}"))

    def job(self, job_id: str) -> JobDetail:
        """The job with this id, or whose id alone begins or ends so.

        Raises:
            NotFound: there is none, or more than one; the message says which.
        """
        return cast(JobDetail, self._get(f"/jobs/{_path(job_id)}"))

    def events(self, job_id: str) -> list[Event]:
        """What happened to the job, the first first.

        Raises:
            NotFound: there is no such job.
        """
        return cast(list[Event], self._get(f"/jobs/{_path(job_id)}/events")["events"])

    def log(self, job_id: str, attempt: int) -> bytes:
        """The very bytes of the end of an attempt's output; none before it has ended.

        Raises:
            NotFound: there is no such job or attempt.
        """
        return self._call("GET", f"/jobs/{_path(job_id)}/log?attempt={attempt}")[1]

    def cancel(self, job_id: str) -> JobDetail:
        """Cancel the job with this whole id.

        Raises:
            NotFound, Conflict: there is none; it has finished otherwise.
            Unknown: nobody knows whether it arrived; cancelling again changes nothing.
        """
        return cast(JobDetail, _object(self._call("DELETE", f"/jobs/{_path(job_id)}")[1]))

    def reschedule(
        self, job_id: str, *, time: str | None = None, delay_s: int | None = None
    ) -> JobDetail:
        """Give the job with this whole id another time: an instant, or so many seconds from now.

        Raises:
            NotFound, Conflict: there is none; it has finished, or its container starts already.
            Unknown: nobody knows whether it arrived; the same instant again changes nothing more.
        """
        fields = {"time": time} if delay_s is None else {"delay_s": delay_s}
        body = json.dumps(fields).encode()
        return cast(JobDetail, _object(self._call("PATCH", f"/jobs/{_path(job_id)}", body)[1]))

    def retry(self, job_id: str) -> JobDetail:
        """Run the finished job with this whole id again.

        Raises:
            NotFound, Conflict: there is none; it has not finished.
            Unknown: nobody knows whether it arrived: look at its attempts before you repeat it.
        """
        return cast(JobDetail, _object(self._call("POST", f"/jobs/{_path(job_id)}/retry", b"")[1]))

    def create_schedule(self, fields: Mapping[str, Any]) -> ScheduleDetail:
        """Make a recurring schedule by the fields of the API's schema; `job` has those of its job.

        Raises:
            Invalid: a field is wrong; `fields` has each.
            Conflict: there is one of that name.
            Unknown: nobody knows whether it arrived; look for its name.
        """
        body = json.dumps(dict(fields)).encode()
        return cast(ScheduleDetail, _object(self._call("POST", "/schedules", body)[1]))

    def schedules(self, *, limit: int = PAGE, after: str = "") -> SchedulePage:
        """One page of recurring schedules, by name, from the first one after `after` on."""
        query = urlencode({"limit": limit, "after": after})
        return cast(SchedulePage, self._get(f"/schedules?{query}"))

    def schedule(
        self, name: str, *, next_fires: int | None = None, fires: int | None = None
    ) -> ScheduleDetail:
        """A recurring schedule, with so many of its next and of its latest fires; else a few.

        Raises:
            NotFound: there is none of that name.
        """
        asked = {"next": next_fires, "fires": fires}
        query = urlencode({name: many for name, many in asked.items() if many is not None})
        return cast(ScheduleDetail, self._get(f"{_schedule(name)}{query and '?'}{query}"))

    def edit_schedule(
        self, name: str, changes: Mapping[str, Any], *, version: int | None = None
    ) -> ScheduleDetail:
        """Change what is given, of `job` what is given of it; with `version` only if it is that one.

        Raises:
            NotFound, Conflict: there is none of that name; it has another version.
            Invalid: a field is wrong; `fields` has each.
            Unknown: nobody knows whether it arrived; the same again changes nothing more.
        """
        sent = {**changes, **({} if version is None else {"version": version})}
        body = json.dumps(sent).encode()
        return cast(ScheduleDetail, _object(self._call("PATCH", _schedule(name), body)[1]))

    def pause_schedule(self, name: str) -> ScheduleDetail:
        """Pause a recurring schedule; one that is paused stays as it is.

        Raises:
            NotFound: there is none of that name.
            Unknown: nobody knows whether it arrived; pausing again changes nothing more.
        """
        return cast(
            ScheduleDetail, _object(self._call("POST", f"{_schedule(name)}/pause", b"")[1])
        )

    def resume_schedule(self, name: str) -> ScheduleDetail:
        """Resume a recurring schedule; one that is not paused stays as it is.

        Raises:
            NotFound: there is none of that name.
            Unknown: nobody knows whether it arrived; resuming again changes nothing more.
        """
        return cast(
            ScheduleDetail, _object(self._call("POST", f"{_schedule(name)}/resume", b"")[1])
        )

    def run_schedule(self, name: str, *, key: str | None = None) -> tuple[JobDetail, bool]:
        """Run a recurring schedule's job now; return it, and whether it is new.

        With `key` the same call may be repeated: it gives the same job.

        Raises:
            NotFound, Conflict: there is none of that name; the key has another job.
            Unknown: nobody knows whether it arrived.
        """
        body = b"" if key is None else json.dumps({"key": key}).encode()
        status, sent = self._call("POST", f"{_schedule(name)}/run", body)
        return cast(JobDetail, _object(sent)), status == 201

    def delete_schedule(self, name: str) -> Schedule:
        """Delete a recurring schedule; return what it was.

        Raises:
            NotFound: there is none of that name.
            Unknown: nobody knows whether it arrived.
        """
        return cast(Schedule, _object(self._call("DELETE", _schedule(name))[1]))

    def _get(self, path: str) -> dict[str, Any]:
        return _object(self._call("GET", path)[1])

    def _call(
        self, method: str, path: str, body: bytes | None = None, kind: str = "application/json"
    ) -> tuple[int, bytes]:
        sent = dict(self._headers)
        if body:
            sent["Content-Type"] = kind
        request = Request(f"{self.url}{path}", data=body, headers=sent, method=method)
        try:
            with self._opener.open(request, timeout=self._timeout_s) as response:
                self.notice = response.headers.get("Atemporal-Notice", "")
                return response.status, response.read(_LARGEST)
        except HTTPError as error:
            with error:
                raise _refusal(self.url, error, method) from None
        except URLError as error:
            # Raised while connecting and sending: what was not sent whole was not heard.
            raise self._silent(error.reason, unsent=True) from None
        except (OSError, HTTPException) as error:
            raise self._silent(error, unsent=method == "GET") from None

    def _silent(self, why: object, *, unsent: bool) -> AtemporalError:
        if unsent:
            return Unavailable(f"the API at {self.url} does not answer: {why}")
        return Unknown(f"the API at {self.url} did not answer ({why}): {_LOOK}")


def _host(url: str) -> str | None:
    """The URL's host; None when it is no URL of an API."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return None
    plain = not (parts.query or parts.fragment or parts.username or parts.password)
    fits = parts.scheme in ("http", "https") and plain and url.isascii() and url.isprintable()
    return host if fits and " " not in url else None


def _schedule(name: str) -> str:
    return f"/schedules/{_path(name, 'schedule')}"


def _path(text: str, what: str = "job") -> str:
    if not text.strip():
        raise NotFound(f"the {what}'s {'id' if what == 'job' else 'name'} is empty")
    return quote(text.strip(), safe="")


def _opener(*, direct: bool) -> OpenerDirector:
    # No proxy reaches this machine's own loopback.
    return build_opener(_NoRedirect(), *([ProxyHandler({})] if direct else []))


def _refusal(url: str, error: HTTPError, method: str) -> AtemporalError:
    """The API's refusal as ours; what is no answer of the API says who answered."""
    sent = _body_of(error)
    why = sent.get("error")
    if not isinstance(why, str):
        if 300 <= error.code < 400:
            return Refused(
                f"{url} answers {error.code}, which leads to {error.headers.get('Location')}: set "
                "ATEMPORAL_API_URL to where the API itself is"
            )
        why = f"{url} answers {error.code}, and not as atemporal's API does"
        if error.code >= 500 and method != "GET":
            # A proxy that gave up does not know what the API did.
            return Unknown(f"{why}: {_LOOK}")
        return Unavailable(why) if error.code >= 500 or error.code == 429 else Refused(why)
    match error.code:
        case 422 if isinstance(sent.get("lines"), dict):
            lines = {int(number): wrong for number, wrong in sent["lines"].items()}
            return InvalidLines(lines, count=sent.get("bad_lines"))
        case 422 if isinstance(sent.get("fields"), dict):
            return Invalid(sent["fields"])
        case 401 | 403:
            return Denied(why)
        case 404:
            return NotFound(why)
        case 409 | 422:
            return Conflict(why)
        case 503:
            return Unavailable(f"the API at {url}: {why}")
        case code if code >= 500 and method != "GET":
            return Unknown(f"the API at {url}: {why}; {_LOOK}")
        case code if code >= 500:
            return Unavailable(f"{url} failed: {why}")
    return Refused(why)


def _body_of(error: HTTPError) -> dict[str, Any]:
    try:
        read = json.loads(error.read(_LARGEST))
    except (ValueError, OSError, HTTPException):
        return {}
    return read if isinstance(read, dict) else {}


def _object(body: bytes) -> dict[str, Any]:
    try:
        read = json.loads(body)
    except ValueError:
        read = None
    if not isinstance(read, dict):
        raise Refused("what answers is not atemporal's API: it sent no JSON object")
    return read
