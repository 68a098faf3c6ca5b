"""The application: all calls put together, and the small ones themselves.

Promise: `GET /` and `/healthz` answer while the database is away, so that a load balancer keeps the
API and its clients get clear errors; `/readyz` says whether the database answers, and is new enough.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from fastapi import Depends, FastAPI, Response

from atemporal import __version__
from atemporal.clock import format_utc
from atemporal.metrics import exposition
from atemporal.prices import load
from atemporal.settings import Settings
from atemporal.store.database import Database
from atemporal.terms import Terms
from services.api import (
    batch,
    callbacks,
    costs,
    dead_letters,
    docs_page,
    error_responses,
    events,
    jobs,
    limits,
    logs,
    machines,
    overview,
    pauses,
    plan,
    schedules,
    ui,
    webhooks,
)
from services.api.auth import Authorizer
from services.api.changes import Changes
from services.api.middleware import RequestMiddleware
from services.api.publisher import Publisher

DESCRIPTION = """
Run a container at a given time, each on a brand-new EC2 instance of its own, gone when it ends.

Every path also works with the suffix `.json`. What is wrong with a call is in
`{"error": ...}`, with `fields` for bad input.
"""


def _noticing(notice: str) -> Callable[[Response], Awaitable[None]]:
    async def add(response: Response) -> None:
        if notice:
            response.headers["Atemporal-Notice"] = notice

    return add


def build(settings: Settings, database: Database, publisher: Publisher) -> FastAPI:
    """Put the application together.

    Raises:
        Invalid: the settings have no callback key, no certificate for the machines' proofs, or a price
            table that can not be read.
    """
    app = FastAPI(
        title="atemporal",
        version=__version__,
        description=DESCRIPTION,
        # Beside the document, wherever that is: a proxy may have taken a prefix off.
        servers=[{"url": "."}],
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    authorizer = Authorizer(settings, database)
    prices = load(settings)
    terms = Terms.of(settings, prices)
    changes = Changes(database, publisher)
    reader = [Depends(authorizer.needs("read"))]
    for of_clients in (
        jobs.router(settings, database, authorizer, publisher, terms),
        logs.router(database, authorizer),
        batch.router(database, authorizer, terms),
        schedules.router(settings, database, authorizer, publisher, terms),
        dead_letters.router(database, authorizer, changes),
        events.router(database, authorizer),
        webhooks.router(settings, database, authorizer),
        limits.router(settings, database, authorizer),
        pauses.router(database, authorizer),
        costs.router(database, authorizer),
        overview.router(settings, database, authorizer),
        plan.router(settings, database, authorizer, prices),
    ):
        app.include_router(of_clients, dependencies=[Depends(_noticing(settings.api_notice))])
    app.include_router(callbacks.router(settings, database, publisher))
    app.include_router(logs.machines_router(settings, database))
    app.include_router(machines.router(settings, database))
    # A browser has no token to show; what the API looks like is no secret.
    app.include_router(docs_page.router())
    app.include_router(ui.router(settings, database, authorizer, changes))

    @app.get("/", tags=["service"], summary="Who is there, and what time it is")
    async def home() -> dict[str, str]:
        """The server's clock in UTC; also a load balancer's health check."""
        return {
            "message": "atemporal runs containers at their time; /ui shows them, /docs how to ask",
            "now": format_utc(datetime.now(UTC)),
        }

    @app.get("/healthz", tags=["service"], summary="Does the process work?")
    async def healthz() -> dict[str, bool]:
        """Always 200: a response is the proof."""
        return {"ok": True}

    @app.get(
        "/readyz", tags=["service"], summary="Can it serve?", responses=error_responses.possible()
    )
    def readyz() -> dict[str, bool]:
        """503 while the database does not answer or is older than the API; the broker may be away."""
        database.check_schema()
        return {"ok": True}

    @app.get("/metrics", tags=["service"], summary="For Prometheus", dependencies=reader)
    async def metrics() -> Response:
        """All metrics of this process, as text."""
        text, media_type = exposition()
        return Response(text, media_type=media_type)

    # Without its suffix, which is taken off every path.
    @app.get("/openapi", include_in_schema=False)
    async def openapi() -> dict[str, object]:
        return app.openapi()

    error_responses.install(app)
    app.add_middleware(RequestMiddleware)
    return app
