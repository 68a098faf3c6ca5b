"""A webhook: who wants to hear of which events, how that goes, and what has been given up.

Promise: whatever is in a `WebhookSpec` has been checked; a bad field is refused with its name and the
reason. A secret is in none of these but `Receiver`, which never shows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, ValidationError, field_validator

from atemporal.errors import Invalid
from atemporal.event_types import EVENT_TYPES, matching
from atemporal.model import forms
from atemporal.model.frozen import Frozen
from atemporal.model.job_spec import MOST_LABELS, describe, parse_spec
from atemporal.model.schedule import is_name
from atemporal.webhook.address import LONGEST_URL, Network, split, why_literal_refused


class WebhookState(StrEnum):
    """How a webhook stands; `failing`: its last request failed, and it is tried again."""

    ACTIVE = "active"
    FAILING = "failing"
    PAUSED = "paused"
    DISABLED = "disabled"


class WebhookFields(Frozen):
    """What a webhook is asked to be."""

    name: str = Field(description="What it is called: letters, digits, _ and -.")
    url: str = Field(description="Where events are sent to.", max_length=LONGEST_URL)
    labels: Annotated[forms.Labels, Field(max_length=MOST_LABELS)] = Field(
        default_factory=dict, description="Only events of jobs that have all these labels."
    )
    types: Annotated[tuple[str, ...], Field(max_length=len(EVENT_TYPES))] = Field(
        default=(),
        description="Only events of these types, or of types that begin so: job.finished.",
    )


class WebhookSpec(WebhookFields):
    """The same, checked."""

    @field_validator("name")
    @classmethod
    def _name_is_one(cls, name: str) -> str:
        if not is_name(name):
            raise ValueError(
                f"{name!r} is no name of a webhook; write up to 63 letters, digits, _ and -, a "
                "letter or digit first and last"
            )
        return name

    @field_validator("labels")
    @classmethod
    def _labels_are_those_of_a_job(cls, labels: dict[str, str]) -> dict[str, str]:
        return parse_spec({"image": "busybox", "labels": labels}).labels

    @field_validator("types")
    @classmethod
    def _types_are_known(cls, types: tuple[str, ...]) -> tuple[str, ...]:
        for one in types:
            matching(one)
        return tuple(dict.fromkeys(types))


def parse_webhook(
    fields: Mapping[str, Any], *, http: bool, allowed: Sequence[Network]
) -> WebhookSpec:
    """Check the fields of a webhook, and that this installation would send anything there.

    Raises:
        Invalid: with each bad field and why.
    """
    try:
        spec = WebhookSpec.model_validate(dict(fields))
    except ValidationError as error:
        raise Invalid(describe(error)) from None
    try:
        host = split(spec.url, http=http).hostname or ""
    except ValueError as error:
        raise Invalid({"url": str(error)}) from None
    why = why_literal_refused(host, allowed)
    if why is not None:
        raise Invalid({"url": why})
    return spec


class Tested(Frozen):
    """A test that was asked for: without `result` it has not been sent yet."""

    id: UUID
    accepted: bool | None = None
    result: str | None = None
    at: datetime | None = None


class Webhook(WebhookFields):
    """A webhook as it is recorded, without its secret.

    `failures` counts those in a row. `position` is the number of the event up to which all have become
    deliveries. `pending` and `failed` are deliveries: those to come, and those given up.
    """

    id: UUID
    position: int
    failures: int
    failing_since: datetime | None = None
    try_at: datetime
    accepted_at: datetime | None = None
    last_error: str | None = None
    last_error_at: datetime | None = None
    paused_at: datetime | None = None
    disabled_at: datetime | None = None
    disabled_why: str | None = None
    tested: Tested | None = None
    created_at: datetime
    updated_at: datetime
    pending: int = 0
    oldest_pending_at: datetime | None = None
    failed: int = 0

    @property
    def state(self) -> WebhookState:
        """How it stands."""
        if self.disabled_at is not None:
            return WebhookState.DISABLED
        if self.paused_at is not None:
            return WebhookState.PAUSED
        return WebhookState.FAILING if self.failures else WebhookState.ACTIVE


class Delivery(Frozen):
    """An event on its way to a webhook's receiver; `body` is what is sent, to the byte."""

    event_id: int
    job_id: UUID
    type: str
    at: datetime
    body: str = Field(repr=False)
    failures: int = 0
    last_error: str | None = None
    dead_at: datetime | None = None

    @property
    def message_id(self) -> str:
        """The same for the same event sent again, and the one that AMQP listeners get."""
        return f"event.{self.event_id}"


@dataclass(frozen=True)
class Sent:
    """What became of one delivery; `asked_s`: for how long the receiver asks to be left alone."""

    event_id: int
    job_id: UUID
    accepted: bool
    error: str = ""
    asked_s: float = 0.0
    unwanted: bool = False
    """The receiver says that it wants no more, for good."""


@dataclass(frozen=True)
class Receiver:
    """Where a webhook's deliveries go, and the secrets that sign them, the newest first."""

    webhook_id: UUID
    name: str
    url: str = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    failures: int
    ready: bool = True
    """Whether deliveries may be sent; else a test alone."""
    test_id: UUID | None = None
