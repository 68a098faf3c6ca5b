"""Jobs as a client writes them, and many of them as lines of JSON (NDJSON).

Promise: a line of a file or of a batch is a job in the form of `POST /jobs`, read by the same rules;
whoever checks a file before it is sent refuses what the API would refuse. What is bad is told by the
line's number and the field's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atemporal.environment import decode_payload
from atemporal.errors import Invalid
from atemporal.json_object import read_object
from atemporal.messages import BODY_LIMIT
from atemporal.model import JobSpec, parse_spec
from atemporal.userdata import check_fits

MEDIA_TYPE = "application/x-ndjson"
LINE_LIMIT = BODY_LIMIT
"""How many bytes one line may have."""


def read_line(line: bytes, *, key: str | None = None) -> JobSpec:
    """Read a job of a line; `key` is for one that has none.

    Raises:
        Invalid: with each bad field and why.
    """
    if len(line) > LINE_LIMIT:
        raise Invalid({"line": f"has more than {LINE_LIMIT} bytes"})
    try:
        fields = read_object(line)
    except Invalid as error:
        raise Invalid({"line": error.fields["body"]}) from None
    if fields.get("key") is None:
        fields["key"] = key
    spec = specification(fields)
    check_fits(spec)
    return spec


def specification(given: Mapping[str, Any], *, key: str | None = None) -> JobSpec:
    """Check a client's fields: the names of a job, and `payload`, the other way to give `env`.

    `key` is given beside the fields; one among them has to be the same.

    Raises:
        Invalid: with each bad field and why, by the name that the client used.
    """
    wrong: dict[str, str] = {}
    spec = dict(given)
    payload = spec.pop("payload", None)
    has_payload = payload not in (None, "")
    if has_payload and "env" in spec:
        wrong["payload"] = "give payload or env, not both"
    elif has_payload:
        try:
            spec["env"] = decode_payload(payload)
        except ValueError as error:
            wrong["payload"] = str(error)
    if key is not None and spec.setdefault("key", key) != key:
        wrong["key"] = "is not the one in the header Idempotency-Key"
    try:
        parsed = parse_spec(spec)
    except Invalid as error:
        given_as = {"env": "payload"} if has_payload else {}
        raise Invalid(
            {given_as.get(name, name): why for name, why in error.fields.items()} | wrong
        ) from None
    if wrong:
        raise Invalid(wrong)
    return parsed
