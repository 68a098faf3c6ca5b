"""Who may call: API tokens with scopes, unless the API is open.

Promise: listening on loopback, with its callbacks on loopback as well, or with `api_open` set, the
API asks for no token; one that is shown all the same is honoured, and its name is in the history.
Everywhere else each call but the public ones (`GET /`, the probes, the
machines' callbacks, which carry their own token) needs one that allows it. An API that is open to
this machine serves nobody else by a detour: a browser names the page that makes it call and
the host it believes to speak to, a proxy says for whom it asks, and calls of foreign pages, for
foreign hosts or through proxies are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from atemporal.errors import Denied
from atemporal.settings import Settings
from atemporal.store import api_tokens
from atemporal.store.api_tokens import ApiToken
from atemporal.store.database import Database
from services.api.error_responses import Forbidden

ANYBODY = "api"
_FORM = "Bearer atp_..."
_BY_PROXY = (
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
)

bearer = HTTPBearer(
    auto_error=False,
    description="An API token (`atemporal token create`); not needed on loopback.",
)
Guard = Callable[..., Any]


def is_loopback(host: str) -> bool:
    """Return whether the name or address is surely this machine's own, for its own programs only."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class Authorizer:
    """The check before every call that is not public."""

    def __init__(self, settings: Settings, database: Database) -> None:
        """Decide once, by the address the API listens on, whether tokens are needed."""
        self._database = database
        self._open = settings.api_open
        # Where machines call from elsewhere, something forwards to us, and not machines alone.
        self._local = is_loopback(settings.api_host) and is_loopback(_host(settings.callback_url))

    def needs(self, *scopes: str) -> Guard:
        """Return the dependency that lets a call with `scopes` pass and says who it is, for the audit.

        Raises (when called):
            Denied: no token, or an unknown one.
            Forbidden: the token does not have each scope; or a page of another host calls.
        """

        async def caller(
            request: Request, given: HTTPAuthorizationCredentials | None = Depends(bearer)
        ) -> str:
            if self._open and not (given and given.credentials.startswith(api_tokens.PREFIX)):
                # What a proxy in front of it checks is no affair of ours.
                return ANYBODY
            if given is not None:
                return await run_in_threadpool(self._holder, given.credentials, scopes)
            if "authorization" in request.headers:
                raise Denied(f"the header Authorization is not of the form {_FORM}")
            if self._local:
                return _of_this_machine(request)
            raise Denied(f"this call needs an API token: Authorization: {_FORM}")

        return caller

    def _holder(self, secret: str, scopes: Sequence[str]) -> str:
        with self._database.begin() as tx:
            token = api_tokens.find(tx, secret)
        if token is None:
            raise Denied("there is no such API token")
        return allowed(token, scopes)


def allowed(token: ApiToken, scopes: Sequence[str]) -> str:
    """Return whose token this is, for the audit.

    Raises:
        Forbidden: it does not have each scope.
    """
    for scope in scopes:
        if not token.allows(scope):
            raise Forbidden(f"the token {token.name!r} does not allow {scope!r}")
    return f"{ANYBODY}:{token.name}"


def _of_this_machine(request: Request) -> str:
    if any(name in _BY_PROXY for name in request.headers):
        raise Forbidden(
            "this API is open to its own machine only and was asked through a proxy: let it listen "
            "on another address (ATEMPORAL_API_HOST), where it wants API tokens"
        )
    if not is_loopback(_host(f"//{request.headers.get('host', '')}")):
        raise Forbidden("this API is open to its own machine only: call it by 127.0.0.1")
    origin = request.headers.get("origin")
    if origin is not None and not is_loopback(_host(origin)):
        raise Forbidden(
            "a page of another host may not use this API, which is open to this machine"
        )
    return ANYBODY


def _host(origin: str) -> str:
    try:
        return urlsplit(origin).hostname or ""
    except ValueError:
        return ""
