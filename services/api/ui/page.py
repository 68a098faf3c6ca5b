"""Pages: a template and what it shows, as a response; and what goes wrong, as a page too.

Promise: all that a template shows is escaped. A page runs no script and has no style but our own files,
is shown in no frame, sends its forms here alone, and is kept by no cache. Every address in it is
relative, so the API may be served beneath any prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

import jinja2
from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from atemporal import __version__
from atemporal.errors import AtemporalError, Denied
from atemporal.plural import counted
from services.api.error_responses import Forbidden, explained
from services.api.ui import assets, wording
from services.api.ui.visitor import FORM_TOKEN, Visitor

_FOLDER: Final = Path(__file__).parent / "templates"
_HTML: Final = "text/html; charset=utf-8"
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # `no-referrer` would hide from us which page sends a form.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""What goes with every page."""

NOTES: Final = {
    "cancelled": "The job is cancelled. Its instance, if it has one, is being ended.",
    "retried": "The job is scheduled again, for now.",
    "replayed": "The message is to be sent again by a scheduler.",
    "dropped": "The message is given up. What it was stays on record.",
    "paused": "The schedule is paused: it fires no more.",
    "resumed": "The schedule fires again, from now on.",
    "signed-in": "You are signed in.",
    "signed-out": "You are signed out.",
}
"""What a page says after a change, by the word in its address."""


class Nav(NamedTuple):
    """A view in the navigation: its path beneath `ui/`, and its title."""

    path: str
    title: str


class Pages:
    """Makes pages of templates."""

    def __init__(self, navigation: tuple[Nav, ...], notice: str = "") -> None:
        """Take the views that every page leads to, and what the operator tells everybody."""
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_FOLDER),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "instant": wording.instant,
            "machine_instant": wording.machine_instant,
            "span": wording.span,
            "mark": wording.mark,
            "visible": wording.visible,
            "counted": partial(counted, form=","),
        }
        self._environment.globals |= {
            "distance": wording.distance,
            "navigation": navigation,
            "notice": notice,
            "version": __version__,
            "assets": assets.ADDRESSES,
            "form_token": FORM_TOKEN,
        }

    def routes(self) -> APIRouter:
        """Routes whose failures are pages."""
        pages = self

        class PageRoute(APIRoute):
            def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
                handler = super().get_route_handler()

                async def shown(request: Request) -> Response:
                    try:
                        return await handler(request)
                    except AtemporalError as error:
                        return pages.problem(request, error)

                return shown

        return APIRouter(include_in_schema=False, route_class=PageRoute, prefix="/ui")

    def render(
        self,
        request: Request,
        visitor: Visitor,
        template: str,
        *,
        here: str,
        status: HTTPStatus = HTTPStatus.OK,
        **shown: Any,
    ) -> Response:
        """Show a template; `here` is the path of the view in the navigation."""
        text = self._environment.get_template(template).render(
            {
                "up": up(request),
                "address": _address(request),
                "visitor": visitor,
                "here": here,
                "note": _note(request, visitor),
                "now": datetime.now(UTC),
                **shown,
            }
        )
        return Response(text, status, headers=HEADERS, media_type=_HTML)

    def problem(self, request: Request, error: AtemporalError) -> Response:
        """Show what is wrong; whoever has to show a token is asked for one."""
        status, sentence = explained(request, error)
        wants_token = isinstance(error, Denied) and not isinstance(error, Forbidden)
        return self.render(
            request,
            getattr(request.state, "visitor", Visitor("")),
            "sign_in.html" if wants_token else "problem.html",
            here="",
            status=status,
            error=wording.visible(sentence),
            back="" if request.method == "GET" else _address(request),
            title="Sign in" if wants_token else status.phrase,
        )


def _note(request: Request, visitor: Visitor) -> str:
    """What was done, for who has done it: a link can say it to anybody."""
    done = request.query_params.get("done", "")
    return NOTES.get(done, "") if visitor.token or done == "signed-out" else ""


def up(request: Request) -> str:
    """The way from this page to the root of the API, for the addresses in it."""
    path = str(request.scope["raw_path"], "ascii", "replace").partition("?")[0]
    below = path.removeprefix(quote(str(request.scope.get("root_path", ""))))
    return "../" * (below.count("/") - 1)


def redirect(request: Request, path: str, query: Mapping[str, str] | None = None) -> Response:
    """Send the browser on to a page beneath `ui/`, to be got anew."""
    where = f"{up(request)}ui/{path}" if path else f"{up(request)}ui"
    if query:
        where += f"?{urlencode(query)}"
    return Response(None, HTTPStatus.SEE_OTHER, headers={**HEADERS, "Location": where})


def _address(request: Request) -> str:
    """This page beneath `ui/`, to come back to after a sign-in; of a change the page it stands on."""
    path = str(request.scope["path"]).removeprefix(request.scope.get("root_path", ""))
    own, query = path.removeprefix("/ui").strip("/"), request.url.query
    if request.method != "GET":
        return own.rpartition("/")[0]
    return f"{own}?{query}" if query else own
