"""From a client's fields to a job's specification, under the original's names or ours.

Promise: `image`, `time` and `payload` mean what they always meant; every other field is one of
`JobSpec`; what is refused is named by the name the client used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_args, get_origin, get_type_hints

from atemporal import job_lines
from atemporal.clock import INSTANT_PATTERN, TIME_FORM
from atemporal.model import JobSpec
from services.api.request_body import FORM, JSON, Form

_TIME = "when to run, in UTC or with an offset; absent or past means now"
_PAYLOAD = "base64 of an env file, one NAME=value a line; the other way to give `env`"

_NUMBERS = frozenset(
    name
    for name, kind in get_type_hints(JobSpec).items()
    if int in (kind, *get_args(kind)) and get_origin(kind) is not tuple
)
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")
_LOST_PLUS = re.compile(r"([Tt ][0-9:.,]+) ([0-9]{2}(?::?[0-9]{2})?)")


def specification(given: Mapping[str, Any], *, key: str | None = None) -> JobSpec:
    """Check a client's fields; `key` is the `Idempotency-Key` header.

    Raises:
        Invalid: with each bad field and why.
    """
    fields = _of_form(given) if isinstance(given, Form) else given
    return job_lines.specification(fields, key=key)


def _of_form(form: Form) -> dict[str, Any]:
    """Read a form's text as JSON's values, where nothing is left to guess."""
    fields = dict(form)
    for name, value in form.items():
        if name in ("time", "run_at"):
            fields[name] = _LOST_PLUS.sub(r"\1+\2", value)
        elif name in _NUMBERS and _WHOLE_NUMBER.fullmatch(value):
            fields[name] = int(value)
    return fields


def documentation() -> dict[str, Any]:
    """The request body of `POST /jobs`, for OpenAPI: it is read by hand."""
    ours = JobSpec.model_json_schema()
    # A reference inside would point to the root of the whole document.
    ours["properties"]["machine"] = ours.pop("$defs")["Machine"]
    text = {"type": "string"}
    original = {
        "image": {**text, "description": "an image's name", "examples": ["nginx:1.9"]},
        "time": {
            **text,
            "pattern": INSTANT_PATTERN,
            "examples": [TIME_FORM],
            "description": _TIME,
        },
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
