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
NAMED = 100
"""So many bad lines are named; of the others only how many there are."""


class InvalidLines(Invalid):
    """Some of many jobs break a rule, and none of all is made.

    `lines` says for each bad one, by its number from 1 on, what is wrong with which field; they are the
    first of `count`.
    """

    def __init__(
        self, lines: Mapping[int, Mapping[str, str]], *, count: int | None = None
    ) -> None:
        self.lines = {number: dict(lines[number]) for number in list(lines)[:NAMED]}
        self.count = len(lines) if count is None else count
        texts = {
            f"line {number}": "; ".join(f"{name}: {why}" for name, why in wrong.items())
            for number, wrong in self.lines.items()
        }
        if self.count > len(texts):
            texts["and"] = f"{self.count - len(texts)} more lines"
        super().__init__(texts)


def read_line(line: bytes, *, key: str | None = None) -> JobSpec:
    """Read a job of a line; `key` is for one that has none.

    Raises:
        Invalid: with each bad field and why.
    """
    if len(line) > LINE_LIMIT:
        raise Invalid({"line": f"has {len(line)} bytes, {LINE_LIMIT} are allowed"})
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
