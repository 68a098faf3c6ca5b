"""One job: its facts, its timeline, its attempts, its history, what its containers wrote.

Promise: the values of its environment are not on the page, as they are in no output of the command line
that was not asked to reveal them. Its output goes on while somebody looks.
"""

from __future__ import annotations

import base64
from typing import Final
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from atemporal.errors import Invalid
from atemporal.model import container
from atemporal.model.schedule import LABEL
from atemporal.states import JobState
from atemporal.store import events, jobs
from services.api.jobs import part_of_id, path_id
from services.api.logs import LogPage, read_page
from services.api.schemas import JobDetail
from services.api.ui import wording
from services.api.ui.page import HEADERS, redirect
from services.api.ui.site import Site
from services.api.ui.timeline import timeline
from services.api.ui.visitor import Visitor

HERE: Final = "jobs"
EVENTS: Final = 200
"""So many of the latest events are shown."""
_LARGEST: Final = 2**63 - 1


def routes(site: Site) -> APIRouter:
    """Build the calls."""
    made = site.pages.routes()
    reader = site.visitors.reader()
    deadlines = site.settings.deadlines

    @made.get("/jobs/{job_id}")
    def show(
        request: Request, job_id: str = Depends(part_of_id), visitor: Visitor = Depends(reader)
    ) -> Response:
        attempt, after = _number(request, "attempt"), _number(request, "after")
        with site.database.begin() as tx:
            job = jobs.get(tx, jobs.resolve(tx, job_id))
            history = events.of_job(tx, job.id)
        now = job.read_at or job.updated_at
        return site.pages.render(
            request,
            visitor,
            "job.html",
            here=HERE,
            title=f"Job {str(job.id)[-12:]}",
            now=now,
            job=JobDetail.show(job, deadlines),
            variables=sorted({**job.spec.env, **job.spec.secrets}),
            references=job.spec.secret_refs,
            container=container.options(job.spec),
            timeline=timeline(job.attempts, now),
            events=history[-EVENTS:],
            left_out=max(0, len(history) - EVENTS),
            log=read_page(site.database, str(job.id), attempt=attempt, after=after),
            log_parts=_log_parts,
            finished=job.state is JobState.FINISHED,
            schedule=job.spec.labels.get(LABEL),
        )

    @made.get("/jobs/{job_id}/log", dependencies=[Depends(reader)])
    def log(request: Request, job_id: str = Depends(part_of_id)) -> Response:
        attempt, after = _number(request, "attempt"), _number(request, "after")
        page = read_page(site.database, job_id, attempt=attempt, after=after)
        return Response(page.model_dump_json(), headers=HEADERS, media_type="application/json")

    @made.post("/jobs/{job_id}/cancel")
    def cancel(
        request: Request,
        job_id: UUID = Depends(path_id),
        actor: str = Depends(site.visitors.changer("cancel")),
    ) -> Response:
        site.changes.cancel(job_id, actor)
        return redirect(request, f"jobs/{job_id}", {"done": "cancelled"})

    @made.post("/jobs/{job_id}/retry")
    def retry(
        request: Request,
        job_id: UUID = Depends(path_id),
        actor: str = Depends(site.visitors.changer("retry")),
    ) -> Response:
        site.changes.retry(job_id, actor)
        return redirect(request, f"jobs/{job_id}", {"done": "retried"})

    return made


def _log_parts(page: LogPage) -> list[tuple[int | None, str]]:
    """The output in pieces: how many bytes are missing before each, and its text."""
    return [(one.missing, wording.output(base64.b64decode(one.data))) for one in page.parts]


def _number(request: Request, name: str) -> int | None:
    given = request.query_params.get(name, "")
    if not given:
        return None
    if not (given.isascii() and given.isdecimal() and len(given) < 20) or int(given) > _LARGEST:
        raise Invalid({name: "is no number: follow a link of the page"})
    return int(given)
