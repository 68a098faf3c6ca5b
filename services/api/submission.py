"""From a client's fields to a job's specification, under the original's names or ours.

Promise: `image`, `time` and `payload` mean what they always meant; every other field is one of
`JobSpec`; what is refused is named by the name the client used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from atemporal.clock import parse_utc
from atemporal.environment import decode_payload
from atemporal.errors import Invalid
from atemporal.model import JobSpec, parse_spec
from services.api.request_body import FORM, JSON

_TIME = "when to run, in UTC, like 2015-04-25T05:27:27.069Z; absent or past means now"
_PAYLOAD = "base64 of an env file, one NAME=value a line; the other way to give `env`"

# The original's name of a field: what it is called in a specification, how it is read.
_ORIGINAL: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "time": ("run_at", parse_utc),
    "payload": ("env", decode_payload),
}


def specification(given: Mapping[str, Any], *, key: str | None = None) -> JobSpec:
    """Check a client's fields; `key` is the `Idempotency-Key` header.

    Raises:
        Invalid: with each bad field and why.
    """
    wrong: dict[str, str] = {}
    given_as: dict[str, str] = {}
    spec = dict(given)
    for original, (name, read) in _ORIGINAL.items():
        value = spec.pop(original, None)
        if value is None or value == "":
            continue
        given_as[name] = original
        if name in spec:
            wrong[original] = f"give {original} or {name}, not both"
        elif not isinstance(value, str):
            wrong[original] = "is not text"
        else:
            try:
                spec[name] = read(value)
            except ValueError as error:
                wrong[original] = str(error)
    if key is not None and spec.setdefault("key", key) != key:
        wrong["key"] = "is not the one in the header Idempotency-Key"
    try:
        parsed = parse_spec(spec)
    except Invalid as error:
        raise Invalid(
            {given_as.get(name, name): why for name, why in error.fields.items()} | wrong
        ) from None
    if wrong:
        raise Invalid(wrong)
    return parsed


def documentation() -> dict[str, Any]:
    """The request body of `POST /jobs`, for OpenAPI: it is read by hand."""
    ours = JobSpec.model_json_schema()
    # A reference inside would point to the root of the whole document.
    ours["properties"]["machine"] = ours.pop("$defs")["Machine"]
    text = {"type": "string"}
    original = {
        "image": {**text, "description": "an image's name", "examples": ["nginx:1.9"]},
        "time": {**text, "description": _TIME},
        "payload": {**text, "description": _PAYLOAD},
    }
    ours["properties"] = {**original, **ours["properties"], "image": original["image"]}
    form = {"type": "object", "required": ["image"], "properties": original}
    return {
        "required": True,
        "content": {
            JSON: {"schema": ours, "example": {"image": "nginx:1.9", "env": {"NAME": "bond"}}},
            FORM: {"schema": form},
        },
    }
