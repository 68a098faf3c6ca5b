"""What every request passes first: the path's one spelling, the access log, the last resort.

Promise: `/jobs/7.json` and `/jobs/7/` are `/jobs/7`, `HEAD` is `GET` without the body; each request
gives one line in the log, without headers, query and body; an error nobody expected is a 500 without
its cause, which is in the log.
"""

from __future__ import annotations

from http import HTTPStatus
from time import monotonic
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atemporal.telemetry import logger
from services.api.error_responses import problem

_PROBES = {"/", "/healthz", "/readyz", "/metrics"}
# What each machine sends every few seconds.
_OFTEN = "/callback/log"


class RequestMiddleware:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap the application."""
        self._app = app
        self._log = logger("http")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = monotonic(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
            await send(message)

        path, method = _canonical(scope["path"]), scope["method"]
        inner = {**scope, "path": path, "method": "GET" if method == "HEAD" else method}
        fields: dict[str, Any] = {"method": method, "path": path}
        try:
            await self._app(inner, receive, watched)
        except ClientDisconnect:
            self._log.info("client went away", **fields)
            return
        except Exception:  # noqa: BLE001 - the last resort: reported, and answered
            self._log.exception("request failed", **fields)
            if not status:
                await _failure()(scope, receive, watched)
        job_id = inner.get("path_params", {}).get("job_id")
        if job_id:
            fields["job"] = job_id
        quiet = path in _PROBES or path.endswith(_OFTEN)
        line = self._log.debug if quiet and status < 400 else self._log.info
        line("request", status=status, ms=round((monotonic() - begun) * 1000, 1), **fields)


def _canonical(path: str) -> str:
    return path.rstrip("/").removesuffix(".json") or "/"


def _failure() -> ASGIApp:
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "this is our fault; the server's log has why")
