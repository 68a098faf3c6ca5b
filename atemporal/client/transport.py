"""One call of the API: how it is sent, and what its answer means.

Promise: every failure is one of `atemporal.errors`; what may have been done is `Unknown`.
"""

from __future__ import annotations

import json
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import (
    HTTPRedirectHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    build_opener,
)

from atemporal.api_url import DEFAULT_URL
from atemporal.errors import (
    AtemporalError,
    Conflict,
    Denied,
    Invalid,
    InvalidLines,
    NotFound,
    Refused,
    Unavailable,
    Unknown,
)

_TIMEOUT_S = 30.0
# A response is as large as a page of jobs with full environments at most.
_LARGEST = 64 * 1024 * 1024


_LOOK = (
    "nobody knows whether it was done: look first; only a cancel, and a submit with a key, may be "
    "repeated without looking"
)


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Transport:
    """The API at `url`; `token` is an API token, not needed for one on loopback.

    `timeout_s` is how long an answer may be silent.
    """

    def __init__(
        self, url: str = DEFAULT_URL, token: str | None = None, *, timeout_s: float = _TIMEOUT_S
    ) -> None:
        """Connect to nothing yet.

        Raises:
            Invalid: the URL or the token can not be one.
        """
        host = _host(url)
        if host is None:
            raise Invalid({"url": f"{url!r} is no URL; write https://HOST, or http://HOST:PORT"})
        if token is not None and not (
            token.isascii() and token.isprintable() and " " not in token
        ):
            raise Invalid({"token": "an API token is ASCII without spaces, like atp_..."})
        self.url = url.rstrip("/")
        self.notice = ""
        """What the API has to say to everybody; known after a call."""
        self._headers = {"Accept": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._timeout_s = timeout_s
        self._opener = _opener(direct=host in ("localhost", "127.0.0.1", "::1"))

    def get(self, path: str) -> dict[str, Any]:
        """Ask for what is at a path: a JSON object."""
        return object_of(self.call("GET", path)[1])

    def call(
        self, method: str, path: str, body: bytes | None = None, kind: str = "application/json"
    ) -> tuple[int, bytes]:
        """Call the API; return the status and the body of its answer.

        Raises:
            Refused: or the kind of it that says why; nothing was done.
            Unavailable: it does not answer; nothing was done.
            Unknown: nobody knows whether it was done.
        """
        sent = dict(self._headers)
        if body:
            sent["Content-Type"] = kind
        request = Request(f"{self.url}{path}", data=body, headers=sent, method=method)
        try:
            with self._opener.open(request, timeout=self._timeout_s) as response:
                self.notice = response.headers.get("Atemporal-Notice", "")
                return response.status, response.read(_LARGEST)
        except HTTPError as error:
            with error:
                raise _refusal(self.url, error, method) from None
        except URLError as error:
            # Raised while connecting and sending: what was not sent whole was not heard.
            raise self._silent(error.reason, unsent=True) from None
        except (OSError, HTTPException) as error:
            raise self._silent(error, unsent=method == "GET") from None

    def _silent(self, why: object, *, unsent: bool) -> AtemporalError:
        if unsent:
            return Unavailable(f"the API at {self.url} does not answer: {why}")
        return Unknown(f"the API at {self.url} did not answer ({why}): {_LOOK}")


def _host(url: str) -> str | None:
    """The URL's host; None when it is no URL of an API."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return None
    plain = not (parts.query or parts.fragment or parts.username or parts.password)
    fits = parts.scheme in ("http", "https") and plain and url.isascii() and url.isprintable()
    return host if fits and " " not in url else None


def path_of(text: str, what: str = "job") -> str:
    """A name or an id as one part of a path.

    Raises:
        NotFound: it is empty.
    """
    if not text.strip():
        raise NotFound(f"the {what}'s {'id' if what == 'job' else 'name'} is empty")
    return quote(text.strip(), safe="")


def _opener(*, direct: bool) -> OpenerDirector:
    # No proxy reaches this machine's own loopback.
    return build_opener(_NoRedirect(), *([ProxyHandler({})] if direct else []))


def _refusal(url: str, error: HTTPError, method: str) -> AtemporalError:
    """The API's refusal as ours; what is no answer of the API says who answered."""
    sent = _body_of(error)
    why = sent.get("error")
    if not isinstance(why, str):
        if 300 <= error.code < 400:
            return Refused(
                f"{url} answers {error.code}, which leads to {error.headers.get('Location')}: set "
                "ATEMPORAL_API_URL to where the API itself is"
            )
        why = f"{url} answers {error.code}, and not as atemporal's API does"
        if error.code >= 500 and method != "GET":
            # A proxy that gave up does not know what the API did.
            return Unknown(f"{why}: {_LOOK}")
        return Unavailable(why) if error.code >= 500 or error.code == 429 else Refused(why)
    match error.code:
        case 422 if isinstance(sent.get("lines"), dict):
            lines = {int(number): wrong for number, wrong in sent["lines"].items()}
            return InvalidLines(lines, count=sent.get("bad_lines"))
        case 422 if isinstance(sent.get("fields"), dict):
            return Invalid(sent["fields"])
        case 401 | 403:
            return Denied(why)
        case 404:
            return NotFound(why)
        case 409 | 422:
            return Conflict(why)
        case 503:
            return Unavailable(f"the API at {url}: {why}")
        case code if code >= 500 and method != "GET":
            return Unknown(f"the API at {url}: {why}; {_LOOK}")
        case code if code >= 500:
            return Unavailable(f"{url} failed: {why}")
    return Refused(why)


def _body_of(error: HTTPError) -> dict[str, Any]:
    try:
        read = json.loads(error.read(_LARGEST))
    except (ValueError, OSError, HTTPException):
        return {}
    return read if isinstance(read, dict) else {}


def object_of(body: bytes) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        Refused: it is none, so no API of ours has sent it.
    """
    try:
        read = json.loads(body)
    except ValueError:
        read = None
    if not isinstance(read, dict):
        raise Refused("what answers is not atemporal's API: it sent no JSON object")
    return read
