"""EC2's own events, as EventBridge puts them into an SQS queue.

Promise: an accelerator and nothing more. The queue holds the events of the whole account, delivered
late, twice, in any order or never; a `Notice` says only that looking at an instance is worth while.
What is no event about an instance's end is no notice. A message stays in the queue until `done`, so
one that was taken by a process that died comes again.
Failure handling: as in `ec2`, whatever boto3 raises becomes a class of `faults`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from botocore.config import Config

from atemporal.cloud.faults import FOREIGN, classify
from atemporal.cloud.instance import INSTANCE_ID
from atemporal.cloud.service_model import session
from atemporal.errors import Invalid, Service
from atemporal.settings import Settings

# SQS gives and deletes at most so many at once.
BATCH = 10
# Long enough to be dealt with, soon enough to be tried again.
_HIDDEN_S = 60
_ENDING = ("stopping", "stopped", "shutting-down", "terminated")
_INTERRUPTION = "interruption"
NOTICE_KINDS = (*_ENDING, _INTERRUPTION)
"""Every `Notice.kind`."""


@dataclass(frozen=True)
class Notice:
    """Something EC2 says of an instance: `kind` is a state it came to, or `interruption`."""

    instance_id: str
    kind: str


@dataclass(frozen=True)
class Delivery:
    """One message of the queue; `notice` is None when it is not about an instance's end."""

    receipt: str
    notice: Notice | None


class _Queue(Protocol):
    """The part of boto3's SQS client that is used here."""

    def receive_message(self, **request: Any) -> dict[str, Any]: ...

    def delete_message_batch(self, **request: Any) -> dict[str, Any]: ...

    def close(self) -> None: ...


class Notices:
    """A reader of the queue; making one asks nothing of SQS."""

    def __init__(self, settings: Settings) -> None:
        """Take the queue's URL from the settings.

        Raises:
            Invalid: there is none, or it is malformed.
        """
        if not settings.events_queue_url:
            raise Invalid({"events_queue_url": "not set: there is no queue to read"})
        self._url = settings.events_queue_url
        try:
            client = session().create_client(
                "sqs",
                region_name=settings.region,
                config=Config(
                    connect_timeout=5,
                    read_timeout=25,
                    retries={"mode": "standard", "total_max_attempts": 2},
                ),
            )
        except ValueError as error:
            raise Invalid({"region, events_queue_url": str(error)}) from error
        except FOREIGN as error:
            raise classify(error, "setting up the SQS client") from error
        self._queue = cast(_Queue, client)

    def receive(self, *, wait_s: int) -> list[Delivery]:
        """Wait up to `wait_s` (0 to 20) seconds for messages and take some.

        Raises:
            Retry: SQS can not be asked now.
            Refused: there is no such queue, or this is no reader of it.
        """
        try:
            answer = self._queue.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=BATCH,
                WaitTimeSeconds=wait_s,
                VisibilityTimeout=_HIDDEN_S,
            )
        except FOREIGN as error:
            raise classify(
                error, "reading the events' queue", reading=True, service=Service.SQS
            ) from error
        return [
            Delivery(message["ReceiptHandle"], read_notice(message.get("Body", "")))
            for message in answer.get("Messages", ())
        ]

    def done(self, deliveries: Sequence[Delivery]) -> None:
        """Delete what has been dealt with; what could not be deleted comes again, harmlessly.

        Raises:
            Retry, Refused: as in `receive`.
        """
        for start in range(0, len(deliveries), BATCH):
            batch = deliveries[start : start + BATCH]
            entries = [
                {"Id": str(index), "ReceiptHandle": one.receipt} for index, one in enumerate(batch)
            ]
            try:
                self._queue.delete_message_batch(QueueUrl=self._url, Entries=entries)
            except FOREIGN as error:
                raise classify(
                    error, "deleting from the events' queue", reading=True, service=Service.SQS
                ) from error

    def close(self) -> None:
        """Give the connections back."""
        self._queue.close()


def read_notice(body: str) -> Notice | None:
    """What an event says of an instance's end; None when it is any other text."""
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        return None
    detail = event.get("detail") if isinstance(event, dict) else None
    if not isinstance(detail, dict) or event.get("source") != "aws.ec2":
        return None
    instance_id, state = detail.get("instance-id"), detail.get("state")
    if not isinstance(instance_id, str) or not INSTANCE_ID.fullmatch(instance_id):
        return None
    if event.get("detail-type") == "EC2 Spot Instance Interruption Warning":
        return Notice(instance_id, _INTERRUPTION)
    if event.get("detail-type") == "EC2 Instance State-change Notification":
        return Notice(instance_id, state) if isinstance(state, str) and state in _ENDING else None
    return None
