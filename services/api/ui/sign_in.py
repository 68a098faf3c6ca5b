"""Signing in and out: an API token is shown once, and a session's secret is kept in its place.

Promise: a browser has one session: signing in again ends the one that it had, which nobody could end by
signing out any more. Sessions of other browsers go on, also those with the same token; all of them end
when the token is revoked.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool

from atemporal.store import api_tokens, sessions
from atemporal.store.database import Database
from atemporal.telemetry import logger
from services.api.ui.page import Pages, redirect
from services.api.ui.visitor import COOKIE, Visitor, check_origin, forget, keep, read_form

# A page of ours beneath `ui/`: nothing that leads elsewhere.
_PAGE: Final = re.compile(r"[\w/-]{0,200}(\?[\w=&%.+*:-]{0,1000})?", re.ASCII)
_UNKNOWN: Final = "there is no such API token; an operator makes one: atemporal token create NAME"


def routes(pages: Pages, database: Database) -> APIRouter:
    """Build the calls."""
    made = pages.routes()
    log = logger("page")

    def begin(secret: str, before: str) -> tuple[str, str] | None:
        with database.begin() as tx:
            token = api_tokens.find(tx, secret)
            if token is None:
                return None
            sessions.end(tx, before)
            return token.name, sessions.begin(tx, token)

    def ask(request: Request, address: str, error: str, status: HTTPStatus) -> Response:
        shown = {"title": "Sign in", "error": error, "address": address}
        return pages.render(request, Visitor(""), "sign_in.html", here="", status=status, **shown)

    def end(secret: str) -> None:
        with database.begin() as tx:
            sessions.end(tx, secret)

    @made.get("/sign-in")
    async def form(request: Request) -> Response:
        return ask(request, request.query_params.get("next", ""), "", HTTPStatus.OK)

    @made.post("/sign-in", dependencies=[Depends(_of_this_page)])
    async def sign_in(request: Request) -> Response:
        fields = await read_form(request)
        where = fields.get("next", "")
        before = request.cookies.get(COOKIE, "")
        begun = await run_in_threadpool(begin, fields.get("token", "").strip(), before)
        if begun is None:
            return ask(request, where, _UNKNOWN, HTTPStatus.UNAUTHORIZED)
        name, secret = begun
        log.info("signed in", token=name)
        path, _, query = where.partition("?") if _PAGE.fullmatch(where) else ("", "", "")
        response = redirect(request, path)
        if query:
            response.headers["location"] += f"?{query}"
        keep(response, request, secret)
        return response

    @made.post("/sign-out", dependencies=[Depends(_of_this_page)])
    async def sign_out(request: Request) -> Response:
        if secret := request.cookies.get(COOKIE):
            await run_in_threadpool(end, secret)
        response = redirect(request, "", {"done": "signed-out"})
        forget(response, request)
        return response

    return made


async def _of_this_page(request: Request) -> None:
    check_origin(request)
