"""Messages: what is written today can be read tomorrow, and what is none is refused."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID

import pytest

from atemporal import messages
from atemporal.errors import Invalid
from atemporal.model import AttemptRef

GOLDEN = Path(__file__).with_name("messages")
JOB = UUID("01900000-0000-7000-8000-000000000001")


@pytest.mark.parametrize(
    "path", sorted(GOLDEN.glob("notification.*.json")), ids=lambda path: path.stem
)
def test_a_recorded_wake_up_is_still_read(path: Path) -> None:
    message = messages.decode_notification(path.read_bytes())
    assert message.ref == AttemptRef(JOB, 2)
    again = json.loads(messages.encode(message))
    assert again == {k: v for k, v in json.loads(path.read_text()).items() if k in again}


def test_there_is_a_record_of_every_wake_up() -> None:
    recorded = {
        json.loads(path.read_text())["type"] for path in GOLDEN.glob("notification.*.json")
    }
    assert recorded == {"job.due", "job.cancel", "instance.running", "instance.exited"}


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("submit.*.json")), ids=lambda path: path.stem)
def test_a_recorded_submit_is_still_read(path: Path) -> None:
    assert messages.decode_submit(path.read_bytes()).job["image"] == "nginx:1.9"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"{",
        b"null",
        b"[]",
        b"{}",
        b'{"type":"job.due"}',
        b'{"type":"job.due","v":2,"job_id":"%s","attempt":1}' % str(JOB).encode(),
        b'{"type":"job.done","v":1,"job_id":"%s","attempt":1}' % str(JOB).encode(),
        b"[" * 100_000,
        b'"' + b"x" * messages.BODY_LIMIT + b'"',
    ],
)
def test_what_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(Invalid):
        messages.decode_notification(body)
    with pytest.raises(Invalid):
        messages.decode_submit(body)
