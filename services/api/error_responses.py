"""Failures as responses: `{"error": ...}`, and `fields` for bad input.

Promise: every failure has a status and a sentence for its reader; no traceback, no address and no
setting of ours is in it. What went wrong behind the API is in the log.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from atemporal.errors import (
    AtemporalError,
    Conflict,
    Denied,
    InDoubt,
    Invalid,
    InvalidLines,
    NotFound,
    Refused,
    TooEarly,
    Unavailable,
    Unreadable,
)
from atemporal.telemetry import logger, tell_unreadable

_log = logger("api")

DENIALS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
"""What every call that wants a scope may be answered with."""


class TooLarge(Refused):
    """The body has more bytes than are read."""


class Forbidden(Denied):
    """We know who calls, and it may not do this."""


class InvalidTransition(Conflict):
    """A machine asked for a transition that its attempt's state does not allow."""


class Problem(BaseModel):
    """Why a call was refused."""

    error: str = Field(examples=["image: Field required"])
    fields: dict[str, str] | None = Field(default=None, description="each bad field, and why")
    differs: dict[str, str] | None = Field(
        default=None, description="how the job that has this key is another one"
    )
    lines: dict[int, dict[str, str]] | None = Field(
        default=None, description="of many jobs: the first bad lines, and each bad field and why"
    )
    bad_lines: int | None = Field(default=None, description="how many bad lines there are")


# The first class that fits decides.
_STATUS: tuple[tuple[type[AtemporalError], HTTPStatus], ...] = (
    (Invalid, HTTPStatus.UNPROCESSABLE_ENTITY),
    (InvalidTransition, HTTPStatus.UNPROCESSABLE_ENTITY),
    (Conflict, HTTPStatus.CONFLICT),
    (NotFound, HTTPStatus.NOT_FOUND),
    (Forbidden, HTTPStatus.FORBIDDEN),
    (Denied, HTTPStatus.UNAUTHORIZED),
    (TooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (TooEarly, HTTPStatus.TOO_EARLY),
    (Unavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    # Not the caller's fault: a machine asks again, and another replica may be of another release.
    (Unreadable, HTTPStatus.INTERNAL_SERVER_ERROR),
)
_DESCRIPTIONS = {
    HTTPStatus.UNAUTHORIZED: "no token, or a wrong one",
    HTTPStatus.FORBIDDEN: "the token does not allow this",
    HTTPStatus.NOT_FOUND: "there is none of that id or name",
    HTTPStatus.CONFLICT: "the job's state or specification contradicts the call",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "the body is too large",
    HTTPStatus.TOO_EARLY: "it is not the job's time yet; ask again",
    HTTPStatus.UNPROCESSABLE_ENTITY: "bad input, or a transition that the state does not allow",
    HTTPStatus.SERVICE_UNAVAILABLE: "the database does not answer; try again",
}


def possible(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """The failures of a call, for its documentation."""
    always = HTTPStatus.SERVICE_UNAVAILABLE
    return {
        status.value: {"model": Problem, "description": _DESCRIPTIONS[status]}
        for status in (*statuses, always)
    }


def problem(
    status: HTTPStatus,
    error: str,
    *,
    headers: Mapping[str, str] | None = None,
    **more: object,
) -> Response:
    """Build the response. What a client sent may be in it, in ASCII: not all text is valid UTF-8."""
    body = json.dumps({"error": error, **more})
    return Response(body, status, headers=dict(headers or {}), media_type="application/json")


def explained(request: Request, error: AtemporalError) -> tuple[HTTPStatus, str]:
    """The status and the sentence for whoever called; what they do not say goes to the log.

    Raises:
        AtemporalError: `error` itself, where it is none that a call may end with.
    """
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), None)
    if status is None:
        raise error
    if isinstance(error, InDoubt) and request.method != "GET":
        _log.warning("in doubt", error=str(error))
        return (
            HTTPStatus.INTERNAL_SERVER_ERROR,
            "the database went away while it wrote: nobody knows whether this was done; look first, or "
            "give a submit a key, with which it is never done twice",
        )
    if isinstance(error, Unavailable):
        _log.warning("unavailable", error=str(error))
        return status, "the database does not answer; try again soon"
    if isinstance(error, Unreadable):
        tell_unreadable(error)
    return status, str(error)


def install(app: FastAPI) -> None:
    """Make every failure of a call one of these responses."""
    app.add_exception_handler(AtemporalError, _on_ours)
    app.add_exception_handler(RequestValidationError, _on_bad_parameter)
    app.add_exception_handler(HTTPException, _on_framework)


async def _on_ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, AtemporalError)
    status, sentence = explained(request, error)
    headers = {
        HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
        HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "1"},
    }.get(status)
    if isinstance(error, InvalidLines):
        return problem(status, sentence, lines=error.lines, bad_lines=error.count)
    if isinstance(error, Invalid):
        return problem(status, sentence, fields=error.fields)
    return problem(status, sentence, headers=headers)


async def _on_bad_parameter(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    fields = {str(item["loc"][1]): str(item["msg"]) for item in error.errors()}
    return await _on_ours(request, Invalid(fields))


async def _on_framework(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    texts = {
        HTTPStatus.NOT_FOUND: f"there is nothing at {request.url.path}; /docs shows what there is",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{request.method} is not possible here; see /docs",
    }
    return problem(status, texts.get(status, error.detail), headers=error.headers)
