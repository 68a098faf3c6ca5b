"""How a webhook is signed: the headers of the Standard Webhooks specification.

Promise: pure; the same message, time and secrets give the same headers. The id stays the same when a
message is sent again, the time does not. While a secret is being changed the message is signed by both.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import datetime

from standardwebhooks.webhooks import Webhook

PREFIX = "whsec_"
SECRET_BYTES = 32


def written(secret: bytes) -> str:
    """A secret as its owner gets it."""
    return PREFIX + base64.b64encode(secret).decode()


def headers(secrets: Sequence[str], message_id: str, at: datetime, body: str) -> dict[str, str]:
    """The headers that prove who sent a body, when; `at` is in UTC, each secret as it was handed out."""
    signatures = [Webhook(secret).sign(message_id, at, body) for secret in secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
