"""Request bodies: read up to a limit, then understood as a form or as JSON.

Promise: no more than its limit of a body is ever held. What `curl -d` sends is understood as it
is: newlines and `+` unescaped in a form's values, or JSON under the name of a form.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request

from atemporal.errors import Invalid
from atemporal.json_object import read_object
from atemporal.messages import BODY_LIMIT
from services.api.error_responses import TooLarge

LIMIT = BODY_LIMIT
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"


async def whole(request: Request) -> bytes:
    """Return the body; raises as `bounded`."""
    return await bounded(request, LIMIT)


async def whole_or_none(request: Request) -> bytes | None:
    """Return the body; None when it has more than `LIMIT` bytes, the rest of which was not read."""
    return await _bounded_or_none(request, LIMIT)


async def bounded(request: Request, limit: int) -> bytes:
    """Return the body.

    Raises:
        TooLarge: it has more than `limit` bytes; the rest was not read.
    """
    body = await _bounded_or_none(request, limit)
    if body is None:
        raise TooLarge(f"the body has more than {limit} bytes")
    return body


async def _bounded_or_none(request: Request, limit: int) -> bytes | None:
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > limit:
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)


def fields(body: bytes, content_type: str) -> dict[str, Any]:
    """Read the fields of a form or of a JSON object.

    Raises:
        Invalid: it is neither.
    """
    kind = content_type.partition(";")[0].strip().lower()
    # `curl -d '{...}'` calls JSON a form; no form of ours begins with a brace.
    if kind == JSON or kind.endswith("+json") or body.lstrip().startswith(b"{"):
        return read_object(body)
    if kind in (FORM, ""):
        return _form(body)
    raise Invalid({"body": f"is {kind}; send {JSON} or {FORM}"})


class Form(dict[str, Any]):
    """The fields of a form: all are text, and a `+` that was not escaped has become a space."""


def _form(body: bytes) -> Form:
    try:
        pairs = parse_qsl(
            body.decode(), keep_blank_values=True, errors="strict", max_num_fields=100
        )
    except ValueError:
        raise Invalid({"body": "is not a form of up to 100 fields in UTF-8"}) from None
    form = Form()
    for name, value in pairs:
        if name in form:
            raise Invalid({name: "given more than once"})
        form[name] = value
    return form
