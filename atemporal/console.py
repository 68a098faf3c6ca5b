"""What a machine wrote on its serial console about its container's end.

Promise: if the record's line arrived whole, the exit is recovered from it, without any help of the
machine, which may be gone; the log's lines are taken as far as they are undamaged. The kernel may
write between the lines, so each carries its own mark and the attempt's id.
"""

from __future__ import annotations

import base64
import binascii

from pydantic import ValidationError

from atemporal.model import LOG_TAIL_LIMIT, ExitRecord


def exit_record(console: str, attempt_id: str) -> ExitRecord | None:
    """Return the last exit record of this attempt with its log tail; None when there is none."""
    record: ExitRecord | None = None
    log = b""
    for line in console.replace("\r", "").split("\n"):
        word, _, rest = line.strip().partition(" ")
        subject, _, text = rest.partition(" ")
        if subject != attempt_id:
            continue
        if word == "atemporal-exit":
            try:
                record = ExitRecord.model_validate_json(text)
            except ValidationError:
                continue
            log = b""
        elif word == "atemporal-log":
            try:
                log += base64.b64decode(text, validate=True)
            except binascii.Error:
                continue
    if record is None:
        return None
    tail = base64.b64encode(log[-LOG_TAIL_LIMIT:])
    return ExitRecord.model_validate({**record.model_dump(exclude={"log_tail"}), "log_tail": tail})
