"""Webhooks, for clients: make, look, test, pause, resume, delete, and what was given up.

Promise: what is answered is committed. A secret is in the answer to the call that makes it, and in no
other. Who may read jobs may look; every change wants the scope `admin`, because a webhook makes this
installation send requests, and tells a stranger of all jobs that fit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, Self, TypeVar, cast

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt
from pydantic import ValidationError as ModelError

from atemporal.errors import Invalid, NotFound
from atemporal.job_view import Instant
from atemporal.json_object import read_object
from atemporal.model import describe
from atemporal.model.schedule import is_name
from atemporal.model.webhook import (
    Delivery,
    Tested,
    Webhook,
    WebhookFields,
    WebhookState,
    parse_webhook,
)
from atemporal.settings import Settings
from atemporal.store import deliveries, webhooks
from atemporal.store.database import Database
from atemporal.telemetry import logger
from services.api import request_body
from services.api.auth import Authorizer
from services.api.error_responses import DENIALS, possible
from services.api.query import LARGEST_NUMBER, only_query, or_absent

PAGE = 100

_BAD = HTTPStatus.UNPROCESSABLE_ENTITY
_ONE = possible(*DENIALS, HTTPStatus.NOT_FOUND, _BAD)
_MAKE = possible(*DENIALS, HTTPStatus.CONFLICT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _BAD)
_Fields = TypeVar("_Fields", bound=BaseModel)
_Limit = Annotated[int, Field(ge=1, le=PAGE)]


class TestView(BaseModel):
    """What came of a test."""

    id: str
    accepted: bool | None = Field(description="null: it has not been sent yet")
    result: str | None
    at: Instant | None

    @classmethod
    def of(cls, tested: Tested) -> Self:
        """Show it."""
        return cast(Self, cls.model_construct(**{**dict(tested), "id": str(tested.id)}))


class WebhookView(WebhookFields):
    """A webhook, and how it fares."""

    model_config = ConfigDict(extra="ignore")

    state: WebhookState
    failures: int = Field(description="in a row, of whatever deliveries")
    failing_since: Instant | None
    try_at: Instant = Field(description="not before then it is sent anything")
    accepted_at: Instant | None = Field(description="when it accepted something last")
    last_error: str | None = Field(description="the latest, of whatever delivery")
    last_error_at: Instant | None
    paused_at: Instant | None
    disabled_at: Instant | None
    disabled_why: str | None
    tested: TestView | None = Field(description="the latest test")
    pending: int = Field(description="events that are to be sent; counted up to 10,000")
    oldest_pending_at: Instant | None = Field(description="when the oldest of these happened")
    failed: int = Field(description="events that were given up; counted up to 10,000")
    created_at: Instant
    updated_at: Instant

    @classmethod
    def of(cls, webhook: Webhook, **more: Any) -> Self:
        """Show one."""
        tested = webhook.tested and TestView.of(webhook.tested)
        shown = {**dict(webhook), "state": webhook.state, "tested": tested, **more}
        return cast(Self, cls.model_construct(**{name: shown[name] for name in cls.model_fields}))


class MadeWebhook(WebhookView):
    """A webhook with the secret that it has from now on."""

    secret: str = Field(description="whsec_...; it is never shown again")


class WebhookPage(BaseModel):
    """Webhooks by name."""

    webhooks: list[WebhookView]
    next: str | None = Field(description="to be given as `after` for the next page")


class FailedDelivery(BaseModel):
    """An event that was given up."""

    event_id: int
    job_id: str
    type: str
    at: Instant
    failures: int
    last_error: str | None
    dead_at: Instant
    body: dict[str, Any] = Field(description="what was to be sent")

    @classmethod
    def of(cls, one: Delivery) -> Self:
        """Show one."""
        shown = {**dict(one), "job_id": str(one.job_id), "body": json.loads(one.body)}
        return cast(Self, cls.model_construct(**shown))


class FailedPage(BaseModel):
    """Events that were given up, by their numbers."""

    deliveries: list[FailedDelivery]
    next: int | None = Field(description="to be given as `after` for the next page")


class Resume(BaseModel):
    """How to go on."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    skip: StrictBool = Field(default=False, description="forget what has happened meanwhile")


class Retry(BaseModel):
    """What to send again."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    events: (
        Annotated[
            list[Annotated[StrictInt, Field(ge=1, le=LARGEST_NUMBER)]], Field(max_length=10_000)
        ]
        | None
    ) = Field(
        default=None, description="the numbers of these events; absent: all that were given up"
    )


class Retried(BaseModel):
    """How many deliveries are sent again."""

    retried: int


async def path_name(name: str) -> str:
    """The webhook's name in the path.

    Raises:
        NotFound: it is no name, so no webhook has it.
    """
    if not is_name(name):
        raise NotFound(f"there is no webhook named {name!r}")
    return name


def router(settings: Settings, database: Database, authorizer: Authorizer) -> APIRouter:
    """Build the calls for webhooks."""
    routes = APIRouter(tags=["webhooks"])
    no_query = Depends(only_query())
    log = logger("webhooks")
    reader, admin = authorizer.needs("read"), authorizer.needs("admin")

    @routes.get(
        "/webhooks",
        summary="List webhooks",
        responses=possible(*DENIALS, _BAD),
        dependencies=[Depends(reader), Depends(only_query("limit", "after"))],
    )
    def list_webhooks(
        limit: Annotated[_Limit | None, Query(description="of one page"), or_absent] = None,
        after: Annotated[str, Query(description="`next` of a page")] = "",
    ) -> WebhookPage:
        """Webhooks by name; `next` is the name to go on after, or null."""
        with database.begin() as tx:
            page = webhooks.listing(tx, after=after, limit=limit or PAGE)
        shown = [WebhookView.of(one) for one in page.webhooks]
        return WebhookPage.model_construct(webhooks=shown, next=page.next)

    @routes.post(
        "/webhooks",
        status_code=HTTPStatus.CREATED,
        summary="Make a webhook",
        responses=_MAKE,
        dependencies=[no_query],
        openapi_extra=_documented(WebhookFields.model_json_schema()),
    )
    def create(
        response: Response,
        actor: str = Depends(admin),
        body: bytes = Depends(request_body.whole),
    ) -> MadeWebhook:
        """Send the events that fit to a URL, from now on; the answer has the secret that signs them."""
        spec = parse_webhook(
            read_object(body), http=settings.webhook_http, allowed=settings.networks_of_webhooks
        )
        with database.begin() as tx:
            made, secret = webhooks.create(tx, spec)
        log.info("created", webhook=made.name, actor=actor)
        response.headers["Location"] = f"/webhooks/{made.name}"
        return MadeWebhook.of(made, secret=secret)

    @routes.get(
        "/webhooks/{name}",
        summary="Show a webhook",
        responses=_ONE,
        dependencies=[Depends(reader), no_query],
    )
    def show(name: str = Depends(path_name)) -> WebhookView:
        """What it is, and how it fares; never its secret."""
        with database.begin() as tx:
            return WebhookView.of(webhooks.get(tx, name))

    @routes.delete(
        "/webhooks/{name}",
        summary="Delete a webhook",
        responses=_ONE,
        dependencies=[no_query],
    )
    def delete(actor: str = Depends(admin), name: str = Depends(path_name)) -> WebhookView:
        """With all that it has not delivered; the answer shows what it was."""
        with database.begin() as tx:
            gone = webhooks.remove(tx, name)
        log.info("deleted", webhook=name, actor=actor, pending=gone.pending, failed=gone.failed)
        return WebhookView.of(gone)

    @routes.post(
        "/webhooks/{name}/pause",
        summary="Pause a webhook",
        responses=_ONE,
        dependencies=[no_query],
    )
    def pause(actor: str = Depends(admin), name: str = Depends(path_name)) -> WebhookView:
        """Nothing is sent until it is resumed; what happens meanwhile is sent then."""
        with database.begin() as tx:
            paused = webhooks.pause(tx, name)
        log.info("paused", webhook=name, actor=actor)
        return WebhookView.of(paused)

    @routes.post(
        "/webhooks/{name}/resume",
        summary="Resume a webhook",
        responses=_ONE,
        dependencies=[no_query],
        openapi_extra=_documented(Resume.model_json_schema(), required=False),
    )
    def resume(
        actor: str = Depends(admin),
        name: str = Depends(path_name),
        body: bytes = Depends(request_body.whole),
    ) -> WebhookView:
        """One that was paused or disabled; one that fails is tried at once."""
        how = _read(Resume, body)
        with database.begin() as tx:
            resumed = webhooks.resume(tx, name, skip=how.skip)
        log.info("resumed", webhook=name, actor=actor, skip=how.skip)
        return WebhookView.of(resumed)

    @routes.post(
        "/webhooks/{name}/rotate-secret",
        summary="Give a webhook another secret",
        responses=_ONE,
        dependencies=[no_query],
    )
    def rotate(actor: str = Depends(admin), name: str = Depends(path_name)) -> MadeWebhook:
        """For a day the secret before signs as well: each message has both signatures."""
        with database.begin() as tx:
            changed, secret = webhooks.rotate_secret(tx, name)
        log.info("secret rotated", webhook=name, actor=actor)
        return MadeWebhook.of(changed, secret=secret)

    @routes.post(
        "/webhooks/{name}/test",
        status_code=HTTPStatus.ACCEPTED,
        summary="Send a test event",
        responses=_ONE,
        dependencies=[no_query],
    )
    def test(actor: str = Depends(admin), name: str = Depends(path_name)) -> WebhookView:
        """Each scheduler sends it, with one id, until the first has noted how it went: `tested`."""
        with database.begin() as tx:
            asked = webhooks.ask_test(tx, name)
        log.info("test asked for", webhook=name, actor=actor)
        return WebhookView.of(asked)

    @routes.get(
        "/webhooks/{name}/failed",
        summary="List what was given up",
        responses=_ONE,
        dependencies=[Depends(reader), Depends(only_query("limit", "after"))],
    )
    def failed(
        name: str = Depends(path_name),
        limit: Annotated[_Limit | None, Query(description="of one page"), or_absent] = None,
        after: Annotated[
            Annotated[int, Field(ge=0, le=LARGEST_NUMBER)] | None,
            Query(description="`next` of a page"),
            or_absent,
        ] = None,
    ) -> FailedPage:
        """Events that the receiver did not accept in about a day of tries, by their numbers."""
        most = limit or PAGE
        with database.begin() as tx:
            found = deliveries.failed(tx, name, after=after or 0, limit=most + 1)
        shown = [FailedDelivery.of(one) for one in found[:most]]
        following = shown[-1].event_id if len(found) > most else None
        return FailedPage.model_construct(deliveries=shown, next=following)

    @routes.post(
        "/webhooks/{name}/retry",
        summary="Send again what was given up",
        responses=_ONE,
        dependencies=[no_query],
        openapi_extra=_documented(Retry.model_json_schema(), required=False),
    )
    def retry(
        actor: str = Depends(admin),
        name: str = Depends(path_name),
        body: bytes = Depends(request_body.whole),
    ) -> Retried:
        """These events, or all; later events of their jobs may have been sent long ago."""
        what = _read(Retry, body)
        with database.begin() as tx:
            many = deliveries.retry(tx, name, what.events)
        log.info("deliveries retried", webhook=name, actor=actor, count=many)
        return Retried(retried=many)

    return routes


def _read(model: type[_Fields], body: bytes) -> _Fields:
    try:
        return model.model_validate(read_object(body) if body.strip() else {})
    except ModelError as error:
        raise Invalid(describe(error)) from None


def _documented(schema: Mapping[str, Any], *, required: bool = True) -> dict[str, Any]:
    content = {request_body.JSON: {"schema": dict(schema)}}
    return {"requestBody": {"required": required, "content": content}}
