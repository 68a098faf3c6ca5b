"""What the calls about dead letters return."""

from __future__ import annotations

from typing import Any, Self, cast
from uuid import UUID

from pydantic import BaseModel, Field

from atemporal.job_view import Instant
from atemporal.model.dead_letter import DeadReason, LetterState, RecordedLetter
from atemporal.store.dead_letters import Page
from services.api.dead_letter_body import ShownBody, shown


class LetterSummary(BaseModel):
    """A dead letter in a list."""

    id: UUID
    state: LetterState
    reason: DeadReason
    detail: str = Field(description="the reason as a sentence")
    errors: dict[str, str] = Field(description="each bad field, and why")
    queue: str | None = Field(description="the queue its message came from; null: unknown")
    exchange: str | None
    routing_key: str | None = Field(examples=["job.submit"])
    message_id: str | None
    correlation_id: str | None
    reply_to: str | None
    body_size: int = Field(description="in bytes")
    replay_of: UUID | None = Field(description="the earlier letter whose replay this one is")
    not_replayable: str | None = Field(
        description="why it can not be sent again; null: it can, unless it was dropped"
    )
    dead_at: Instant | None = Field(description="when its message died")
    received_at: Instant = Field(description="when it was kept")
    decided_at: Instant | None = Field(description="when its replay was asked for, or it dropped")
    decided_by: str | None
    replayed_at: Instant | None = Field(description="when the broker had confirmed its replay")
    read_at: Instant

    @classmethod
    def show(cls, letter: RecordedLetter, **more: Any) -> Self:
        """Show one letter."""
        shown = {
            **{name: getattr(letter, name, None) for name in cls.model_fields},
            "not_replayable": letter.why_not_replayable,
            **more,
        }
        return cast(Self, cls.model_construct(**shown))


class DeathView(BaseModel):
    """One entry of the broker's own history of a message."""

    queue: str
    reason: str
    count: int = Field(description="how often it died so")
    time: Instant | None
    exchange: str
    routing_keys: tuple[str, ...]


class LetterDetail(LetterSummary):
    """A dead letter."""

    deaths: tuple[DeathView, ...] = Field(description="the broker's history, the latest first")
    properties: dict[str, Any] = Field(
        description="what else AMQP had of its message, with the headers; empty once dropped"
    )
    body: str | None = Field(
        description="as text, with null in place of secrets, of unknown fields' values, and of text "
        "that begins as JSON does; null: dropped, or see `body_not_shown`"
    )
    body_not_shown: str | None = Field(
        description="why a body that is kept is not shown, and how many bytes it has; null: it "
        "is shown, or dropped"
    )

    @classmethod
    def show_all(cls, letter: RecordedLetter) -> LetterDetail:
        """Show one letter with its message."""
        deaths = tuple(DeathView.model_construct(**dict(one)) for one in letter.deaths)
        body = ShownBody(None) if letter.body is None else shown(letter.body, letter.body_size)
        return cls.show(letter, deaths=deaths, body=body.text, body_not_shown=body.why_not)


class LetterPage(BaseModel):
    """Dead letters, the newest first."""

    dead_letters: list[LetterSummary]
    next: UUID | None = Field(description="to be given as `after` for the next page")

    @classmethod
    def show(cls, page: Page) -> LetterPage:
        """Show a page."""
        shown = [LetterSummary.show(one) for one in page.letters]
        return cls.model_construct(dead_letters=shown, next=page.next)
