"""Who visits the page: a session, or nobody in particular where the API itself asks for no token.

Promise: the page shows what the API would tell the same caller, and changes nothing without a session:
a change is somebody's, and its form was made for that session. No page of another host can make a
browser change anything here, nor sign it in or out.
Mechanism: the browser keeps a session's secret in a cookie that scripts can not read and that foreign
pages do not send. What changes something is a POST, and passes three checks: the browser says that a
page of ours sent it, its form holds a word made from the session's secret, the token has the scopes.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from fastapi import Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials

from atemporal.errors import Denied
from atemporal.store import sessions
from atemporal.store.api_tokens import ApiToken
from atemporal.store.database import Database
from services.api import request_body
from services.api.auth import Authorizer, allowed, bearer
from services.api.changes import SCOPES
from services.api.error_responses import Forbidden

COOKIE: Final = "atemporal_session"
FORM_TOKEN: Final = "form_token"
_FORM_LIMIT: Final = 16 * 1024
_PURPOSE: Final = b"atemporal form"


class Visitor(NamedTuple):
    """Who looks: without a `token` nobody who may change anything."""

    actor: str
    token: ApiToken | None = None
    form_token: str = ""

    def may(self, change: str) -> bool:
        """Tell whether the session's token allows this change."""
        return self.token is not None and all(map(self.token.allows, SCOPES[change]))


class Visitors:
    """The checks before the page's own calls."""

    def __init__(self, authorizer: Authorizer, database: Database) -> None:
        """Take who decides about the API's calls, and where the sessions are."""
        self._database = database
        self._as_the_api = authorizer.needs("read")

    def reader(self) -> Callable[..., Awaitable[Visitor]]:
        """Return the dependency that lets a reader pass and says who it is.

        Raises (when called):
            Denied: the API would want a token, and there is no session.
            Forbidden: the session's token may not read; or as the API says it.
        """

        async def visitor(
            request: Request, given: HTTPAuthorizationCredentials | None = Depends(bearer)
        ) -> Visitor:
            found = await run_in_threadpool(self._signed_in, request)
            if found is None:
                return Visitor(await self._as_the_api(request, given))
            if found.token is not None:
                allowed(found.token, ("read",))
            return found

        return visitor

    def changer(self, change: str) -> Callable[..., Awaitable[str]]:
        """Return the dependency that lets whoever may make this change pass, and says who it is.

        Raises (when called):
            Denied: there is no session.
            Forbidden: a page of another host asks, the form is not the session's, or the token does not
                have the scopes.
        """

        async def actor(request: Request) -> str:
            check_origin(request)
            found = await run_in_threadpool(self._signed_in, request)
            if found is None or found.token is None:
                raise Denied("sign in to change something: the session is over, or there was none")
            form = await read_form(request)
            if not hmac.compare_digest(
                form.get(FORM_TOKEN, "").encode(), found.form_token.encode()
            ):
                raise Forbidden(
                    "the form is of another session: load the page again and repeat it"
                )
            return allowed(found.token, SCOPES[change])

        return actor

    def _signed_in(self, request: Request) -> Visitor | None:
        secret = request.cookies.get(COOKIE)
        if not secret:
            return None
        with self._database.begin() as tx:
            token = sessions.find(tx, secret)
        if token is None:
            return None
        word = hmac.new(secret.encode(), _PURPOSE, hashlib.sha256).hexdigest()
        found = Visitor(allowed(token, ()), token, word)
        # A page that says what is wrong shows who is signed in, too.
        request.state.visitor = found
        return found


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of the form that was sent.

    Raises:
        Invalid: it is no form.
        TooLarge: no form of the page is so large.
    """
    body = await request_body.bounded(request, _FORM_LIMIT)
    fields = request_body.fields(body, request_body.FORM)
    # What JSON can write and no form is no text: no field of ours needs it.
    return {
        name: value
        for name, value in fields.items()
        if isinstance(value, str) and not any("\ud800" <= one <= "\udfff" for one in value)
    }


def check_origin(request: Request) -> None:
    """Let only what a page of ours has sent pass.

    Raises:
        Forbidden: the browser says that another page sent it, or nothing says that one of ours did.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is not None:
        if site == "same-origin":
            return
        raise Forbidden("a page of another host may change nothing here")
    if origin is None:
        raise Forbidden("nothing says which page sent this form; programs use the API itself")
    if urlsplit(origin).netloc != request.headers.get("host"):
        raise Forbidden(
            f"a form from {origin} may change nothing here; where that is this page's own address, the "
            "proxy in front has to pass the header Host on"
        )


def keep(response: Response, request: Request, secret: str) -> None:
    """Give the browser a session.

    Without a path the cookie is for what lies beside the form's address, under whatever prefix a proxy
    has put it.
    """
    response.set_cookie(
        COOKIE,
        secret,
        max_age=sessions.LIFETIME_S,
        path=None,
        secure=_is_secure(request),
        httponly=True,
        samesite="strict",
    )


def forget(response: Response, request: Request) -> None:
    """Take the session from the browser."""
    response.set_cookie(
        COOKIE,
        "",
        max_age=0,
        path=None,
        secure=_is_secure(request),
        httponly=True,
        samesite="strict",
    )


def _is_secure(request: Request) -> bool:
    # A proxy may have ended TLS: the browser knows what it speaks.
    return request.url.scheme == "https" or request.headers.get("origin", "").startswith("https:")
