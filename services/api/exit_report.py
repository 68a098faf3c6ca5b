"""A machine's report of its end, read as well as it can be.

Promise: an end that was reported with the right token is never lost for a fault in the record. A
field that can not be read is left out and the others count; a log that is too long is cut to its
end; with no readable record at all the end is `unreported`, exactly as without a body. To refuse it
instead would make the machine ask again what can only be refused again, and would leave an attempt
running that is known to have ended. What was left out is in the attempt's `detail`.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, NamedTuple

from pydantic import ValidationError

from atemporal.errors import Conflict, Invalid
from atemporal.json_object import read_object
from atemporal.model import LOG_TAIL_LIMIT, Attempt, ExitRecord, ReportedReason
from atemporal.states import Reason
from services.api import request_body


class Exit(NamedTuple):
    """What is known of an end; `reported` is the record as it came."""

    record: ExitRecord | None
    detail: str | None
    reported: dict[str, Any]

    @property
    def reason(self) -> ReportedReason:
        """Why the attempt ended."""
        if self.record is None:
            return Reason.UNREPORTED
        # A code or a start that can not be read was reported all the same: docker has answered.
        docker_answered = any(
            self.reported.get(name) is not None for name in ("exit_code", "started_at")
        )
        lost = self.record.reason is Reason.INSTANCE_LOST
        if lost and docker_answered and not self.record.stopped:
            return Reason.UNREPORTED
        return self.record.reason

    def check_machine(self, attempt: Attempt) -> None:
        """Refuse the report of a machine that is not the one that runs the attempt.

        Claims are compared as they came: one too odd to be read is not the right one either. Who was
        granted the claim is believed, whatever it is called by its metadata service.

        Raises:
            Conflict: the attempt is claimed by, or belongs to, another machine.
        """
        claim, instance_id = self.reported.get("claim"), self.reported.get("instance_id")
        if attempt.claim is not None and claim is not None:
            if claim != attempt.claim:
                raise Conflict("another machine has claimed this attempt")
            return
        known = attempt.instance_id
        if known is not None and instance_id is not None and instance_id != known:
            raise Conflict(f"this attempt belongs to instance {known}")


def read(body: bytes | None) -> Exit:
    """Read the body of an exit callback; None stands for one that was too large to be read."""
    if body is None:
        return Exit(None, f"its exit record has more than {request_body.LIMIT} bytes", {})
    if not body.strip():
        return Exit(None, None, {})
    try:
        reported = read_object(body)
    except Invalid as error:
        return Exit(None, f"its exit record can not be read: {error}", {})
    try:
        return Exit(ExitRecord.model_validate(reported), None, reported)
    except ValidationError as error:
        bad = sorted({str(item["loc"][0]) for item in error.errors(include_input=False)})
    kept = {name: value for name, value in reported.items() if name not in bad}
    if "log_tail" in bad:
        kept["log_tail"] = _end_of(reported["log_tail"])
    record = ExitRecord.model_validate(kept)
    return Exit(record, f"its exit record was damaged in: {', '.join(bad)}", reported)


def _end_of(log_tail: Any) -> bytes:
    """The end of a log that is too long, base64-encoded again; nothing if it can not be read."""
    try:
        log = base64.b64decode(log_tail)
    except (TypeError, ValueError, binascii.Error):
        return b""
    return base64.b64encode(log[-LOG_TAIL_LIMIT:])
