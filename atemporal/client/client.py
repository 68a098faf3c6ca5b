"""The calls of the API, one method each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlencode

from atemporal.client.costs import CostCalls
from atemporal.client.dead_letters import DeadLetterCalls
from atemporal.client.limits import LimitCalls
from atemporal.client.logs import LogCalls
from atemporal.client.pauses import PauseCalls
from atemporal.client.plan import PlanCalls
from atemporal.client.shapes import (
    Event,
    EventPage,
    JobDetail,
    JobPage,
    LineResult,
    Overview,
    Schedule,
    ScheduleDetail,
    SchedulePage,
)
from atemporal.client.transport import object_of, path_of
from atemporal.client.webhooks import WebhookCalls

PAGE = 1000
"""The most jobs that the API sends at once."""
BATCH = 10_000
"""The most jobs that the API takes at once, of no more than `BATCH_BYTES` together."""
BATCH_BYTES = 16 * 1024 * 1024

_LINES = "application/x-ndjson"


class Client(
    CostCalls, DeadLetterCalls, LimitCalls, LogCalls, PauseCalls, PlanCalls, WebhookCalls
):
    """The API at `url`; `token` is an API token, not needed for one on loopback.

    `timeout_s` is how long an answer may be silent.
    """

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
        status, body = self.call("POST", "/jobs", json.dumps(sent).encode())
        return cast(JobDetail, object_of(body)), status == 201

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
        _, sent = self.call("POST", path, body, _LINES)
        return [cast(LineResult, object_of(line)) for line in sent.splitlines()]

    def jobs(
        self,
        *,
        states: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        limit: int = PAGE,
        after: str | None = None,
        newest_first: bool = False,
        image: str = "",
        times: Mapping[str, str | int] | None = None,
    ) -> JobPage:
        """One page of jobs that are in one of the states or outcomes and have all the labels.

        With `image`, a part of the image's name, a page may be empty and yet have a `next`; then `total`
        says nothing. With `times` jobs come in the order of their times, which are within these:
        `since` and `until` as text, or `since_s` and `until_s`, seconds ago.

        Raises:
            Invalid: `until` is not after `since`.
            NotFound: there is no job `after`.
        """
        query: list[tuple[str, str]] = [("limit", str(limit))]
        query += [("state", one) for one in states]
        query += [("label", f"{name}={value}") for name, value in (labels or {}).items()]
        query += [("after", after)] if after else []
        query += [("order", "newest")] if newest_first else []
        query += [("image", image)] if image else []
        query += [(name, str(one)) for name, one in (times or {}).items()]
        return cast(JobPage, self.get(f"/jobs?{urlencode(query)}"))

    def overview(self, *, limit: int = 10) -> Overview:
        """What is under way, and up to `limit` jobs that run, come next, have ended last."""
        return cast(Overview, self.get(f"/overview?limit={limit}"))

    def job(self, job_id: str) -> JobDetail:
        """The job with this id, or whose id alone begins or ends so.

        Raises:
            NotFound: there is none, or more than one; the message says which.
        """
        return cast(JobDetail, self.get(f"/jobs/{path_of(job_id)}"))

    def events(self, job_id: str) -> list[Event]:
        """What happened to the job, the first first.

        Raises:
            NotFound: there is no such job.
        """
        return cast(list[Event], self.get(f"/jobs/{path_of(job_id)}/events")["events"])

    def event_page(
        self,
        *,
        after: int | None = None,
        last: int | None = None,
        job_id: str | None = None,
        labels: Mapping[str, str] | None = None,
        types: Sequence[str] = (),
        since: str | None = None,
        limit: int = PAGE,
    ) -> EventPage:
        """Events of all jobs, or of those wanted: with numbers above `after`, or the `last` so many.

        They come in the order of their numbers, and none is missed by who goes on after `next`. A type
        may be its beginning, like `job.finished`; `since` is an instant.

        Raises:
            Invalid: a filter is none, or there is no event `after` yet.
        """
        given = {"after": after, "last": last, "job": job_id, "since": since, "limit": limit}
        query = [(name, str(value)) for name, value in given.items() if value is not None]
        query += [("label", f"{name}={value}") for name, value in (labels or {}).items()]
        query += [("type", one) for one in types]
        return cast(EventPage, self.get(f"/events?{urlencode(query)}"))

    def cancel(self, job_id: str) -> JobDetail:
        """Cancel the job with this whole id.

        Raises:
            NotFound, Conflict: there is none; it has finished otherwise.
            Unknown: nobody knows whether it arrived; cancelling again changes nothing.
        """
        return cast(JobDetail, object_of(self.call("DELETE", f"/jobs/{path_of(job_id)}")[1]))

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
        return cast(JobDetail, object_of(self.call("PATCH", f"/jobs/{path_of(job_id)}", body)[1]))

    def retry(self, job_id: str) -> JobDetail:
        """Run the finished job with this whole id again.

        Raises:
            NotFound, Conflict: there is none; it has not finished.
            Unknown: nobody knows whether it arrived: look at its attempts before you repeat it.
        """
        return cast(
            JobDetail, object_of(self.call("POST", f"/jobs/{path_of(job_id)}/retry", b"")[1])
        )

    def create_schedule(self, fields: Mapping[str, Any]) -> ScheduleDetail:
        """Make a recurring schedule by the fields of the API's schema; `job` has those of its job.

        Raises:
            Invalid: a field is wrong; `fields` has each.
            Conflict: there is one of that name.
            Unknown: nobody knows whether it arrived; look for its name.
        """
        body = json.dumps(dict(fields)).encode()
        return cast(ScheduleDetail, object_of(self.call("POST", "/schedules", body)[1]))

    def schedules(self, *, limit: int = PAGE, after: str = "") -> SchedulePage:
        """One page of recurring schedules, by name, from the first one after `after` on."""
        query = urlencode({"limit": limit, "after": after})
        return cast(SchedulePage, self.get(f"/schedules?{query}"))

    def schedule(
        self, name: str, *, next_fires: int | None = None, fires: int | None = None
    ) -> ScheduleDetail:
        """A recurring schedule, with so many of its next and of its latest fires; else a few.

        Raises:
            NotFound: there is none of that name.
        """
        asked = {"next": next_fires, "fires": fires}
        query = urlencode({name: many for name, many in asked.items() if many is not None})
        return cast(ScheduleDetail, self.get(f"{_schedule(name)}{query and '?'}{query}"))

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
        return cast(ScheduleDetail, object_of(self.call("PATCH", _schedule(name), body)[1]))

    def pause_schedule(self, name: str) -> ScheduleDetail:
        """Pause a recurring schedule; one that is paused stays as it is.

        Raises:
            NotFound: there is none of that name.
            Unknown: nobody knows whether it arrived; pausing again changes nothing more.
        """
        return cast(
            ScheduleDetail, object_of(self.call("POST", f"{_schedule(name)}/pause", b"")[1])
        )

    def resume_schedule(self, name: str) -> ScheduleDetail:
        """Resume a recurring schedule; one that is not paused stays as it is.

        Raises:
            NotFound: there is none of that name.
            Unknown: nobody knows whether it arrived; resuming again changes nothing more.
        """
        return cast(
            ScheduleDetail, object_of(self.call("POST", f"{_schedule(name)}/resume", b"")[1])
        )

    def run_schedule(self, name: str, *, key: str | None = None) -> tuple[JobDetail, bool]:
        """Run a recurring schedule's job now; return it, and whether it is new.

        With `key` the same call may be repeated: it gives the same job.

        Raises:
            NotFound, Conflict: there is none of that name; the key has another job.
            Unknown: nobody knows whether it arrived.
        """
        body = b"" if key is None else json.dumps({"key": key}).encode()
        status, sent = self.call("POST", f"{_schedule(name)}/run", body)
        return cast(JobDetail, object_of(sent)), status == 201

    def delete_schedule(self, name: str) -> Schedule:
        """Delete a recurring schedule; return what it was.

        Raises:
            NotFound: there is none of that name.
            Unknown: nobody knows whether it arrived.
        """
        return cast(Schedule, object_of(self.call("DELETE", _schedule(name))[1]))


def _schedule(name: str) -> str:
    return f"/schedules/{path_of(name, 'schedule')}"
