"""A dead letter: a message that nobody could use, why, and what an operator decided about it.

Promise: a letter holds what its message was, as far as it can be kept: the body to the byte, up to
`BODY_LIMIT`, and its properties for a reader's eyes. It can be sent again if its body is whole and its
queue is one of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import Field

from atemporal.messages import BODY_LIMIT, MESSAGES
from atemporal.model.frozen import Frozen

QUEUES = tuple(sorted({str(kind.queue) for kind in MESSAGES if kind.queue is not None}))
"""The queues to which a letter can be sent again."""


class DeadReason(StrEnum):
    """Why a message is a dead letter; the broker's own words for what the broker decided."""

    INVALID = "invalid"
    """Its reader refused it; `errors` says for each field why."""
    UNREADABLE = "unreadable"
    """Its properties could not be read, so not even its id is known."""
    DELIVERY_LIMIT = "delivery_limit"
    REJECTED = "rejected"
    EXPIRED = "expired"
    MAXLEN = "maxlen"
    UNKNOWN = "unknown"
    """It says nothing about itself: somebody put it among the dead letters."""


class LetterState(StrEnum):
    """What has been decided about a letter."""

    KEPT = "kept"
    """Nothing yet."""
    REPLAYING = "replaying"
    """It is to be sent again; the broker has not confirmed it."""
    REPLAYED = "replayed"
    DROPPED = "dropped"
    """Nobody wants it: its body is gone."""


class Death(Frozen):
    """One entry of the broker's history of a message: it died so often, of this, in that queue."""

    queue: str
    reason: str
    count: int = 1
    time: datetime | None = None
    exchange: str = ""
    routing_keys: tuple[str, ...] = ()


class DeadLetter(Frozen):
    """A letter as it comes off its queue.

    `queue`, `exchange` and `routing_key` are where its message came from, `dead_at` is when it died;
    None: unknown. `detail` is the reason as a sentence. `properties` are for show, with the headers.
    `digest` is the same when the broker delivers the same letter again; `redelivered` is False when it
    surely delivers it for the first time.
    """

    queue: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    message_id: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    reason: DeadReason
    detail: str = ""
    errors: Mapping[str, str] = Field(default_factory=dict)
    deaths: tuple[Death, ...] = ()
    properties: Mapping[str, Any] = Field(default_factory=dict)
    dead_at: datetime | None = None
    body: bytes = Field(repr=False)
    body_size: int
    replay_of: UUID | None = None
    digest: str
    redelivered: bool = False


class RecordedLetter(Frozen):
    """A letter as it is recorded; of one in a list `body`, `deaths` and `properties` are left out.

    `body` is the beginning of it where it has more than `BODY_LIMIT` bytes, and None once it was
    dropped. `replay_of` is the earlier letter whose replay this one is. `decided_at` and `decided_by`
    are of the replay that was asked for, or of the drop.
    """

    id: UUID
    received_at: datetime
    dead_at: datetime | None
    queue: str | None
    exchange: str | None
    routing_key: str | None
    message_id: str | None
    correlation_id: str | None
    reply_to: str | None
    reason: DeadReason
    detail: str
    errors: dict[str, str]
    body_size: int
    replay_of: UUID | None
    state: LetterState
    decided_at: datetime | None
    decided_by: str | None
    replayed_at: datetime | None
    read_at: datetime
    body: bytes | None = Field(default=None, repr=False)
    deaths: tuple[Death, ...] = ()
    properties: dict[str, Any] = Field(default_factory=dict, repr=False)

    @property
    def replay_id(self) -> str:
        """The message id of its replay where its message had none: all copies of it are one job."""
        return f"dead-letter.{self.id}"

    @property
    def why_not_replayable(self) -> str | None:
        """Why it can not be sent again; None if it can."""
        if self.queue not in QUEUES:
            came = f"came from {self.queue!r}" if self.queue else "does not say where it came from"
            return f"it {came}, and can go to {', '.join(QUEUES)} only"
        if self.body_size > BODY_LIMIT:
            return f"it has {self.body_size} bytes, of which {BODY_LIMIT} are kept: no reader takes more"
        return None
