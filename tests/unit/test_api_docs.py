"""The API's page of documentation: from this API alone, and beneath whatever prefix."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from atemporal.broker import Link
from atemporal.settings import Settings
from atemporal.store.database import Database
from services.api.app import build
from services.api.docs_page import FILES
from services.api.publisher import Publisher
from tests.api import KEYS

PREFIX = "/atemporal"
# By a name of another machine, as a browser behind a proxy has it.
HOST = "https://jobs.example.com"


@pytest.fixture(scope="module")
def api() -> Iterator[ASGIApp]:
    """The application, open, with neither database nor broker."""
    settings = Settings.model_validate({"callback_keys": KEYS, "api_open": True})
    database = Database("postgresql://nobody@127.0.0.1:1/none")
    yield build(settings, database, Publisher(Link("amqp://127.0.0.1:1//", name="test")))
    database.dispose()


def plain(app: ASGIApp) -> tuple[ASGIApp, str]:
    return app, ""


def mounted(app: ASGIApp) -> tuple[ASGIApp, str]:
    return Starlette(routes=[Mount(PREFIX, app)]), PREFIX


def stripped(app: ASGIApp, prefix: str = PREFIX) -> tuple[ASGIApp, str]:
    """A proxy that takes the prefix off and says nothing of it."""

    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["path"].startswith(f"{prefix}/"), (
            f"asked outside of the prefix: {scope['path']}"
        )
        inner = {
            **scope,
            "path": scope["path"].removeprefix(prefix),
            "raw_path": scope["raw_path"].removeprefix(prefix.encode()),
        }
        await app(inner, receive, send)

    return proxy, prefix


def deeper(app: ASGIApp) -> tuple[ASGIApp, str]:
    return stripped(app, "/teams/docs/atemporal")


class References(HTMLParser):
    """What a page makes a browser load or lets it follow."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found = re.findall(r"url: *['\"]([^'\"]*)['\"]", page)
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("href", "src", "action")]


def get(app: ASGIApp, *urls: str) -> list[httpx.Response]:
    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport) as client:
            return [await client.get(url) for url in urls]

    return asyncio.run(ask())


ways = pytest.mark.parametrize("served", [plain, mounted, stripped, deeper])
# To us they are all the same page, to a browser they are in different places.
spellings = pytest.mark.parametrize("page", ["docs", "docs/", "docs.json", "docs.json/"])


@ways
@spellings
def test_what_the_page_names_is_there_relative_to_it(
    api: ASGIApp, served: Callable[[ASGIApp], tuple[ASGIApp, str]], page: str
) -> None:
    app, prefix = served(api)
    at = f"{HOST}{prefix}/{page}"
    (shown,) = get(app, at)
    assert (shown.status_code, shown.headers["content-type"]) == (200, "text/html; charset=utf-8")
    found = References(shown.text).found
    assert len(found) == 4
    assert not [one for one in found if one.startswith("/") or urlsplit(one).scheme]
    responses = get(app, *(urljoin(at, one) for one in found))
    assert {one.status_code for one in responses} == {200}
    types = {one.headers["content-type"].partition(";")[0] for one in responses}
    assert types == {*FILES.values(), "application/json"}


@ways
def test_what_the_page_tries_out_is_asked_beneath_the_prefix(
    api: ASGIApp, served: Callable[[ASGIApp], tuple[ASGIApp, str]]
) -> None:
    app, prefix = served(api)
    at = f"{HOST}{prefix}/openapi.json"
    (document,) = get(app, at)
    (server,) = document.json()["servers"]
    base = urljoin(at, server["url"]).rstrip("/")
    assert base == f"{HOST}{prefix}"
    assert "/healthz" in document.json()["paths"]
    (health,) = get(app, f"{base}/healthz")
    assert health.json() == {"ok": True}


@ways
@pytest.mark.parametrize(
    "page", ["ui/sign-in", "ui/sign-in/", "ui/sign-in.json", "ui/none/at/all/"]
)
def test_what_the_page_for_people_names_is_there_relative_to_it(
    api: ASGIApp, served: Callable[[ASGIApp], tuple[ASGIApp, str]], page: str
) -> None:
    app, prefix = served(api)
    at = f"{HOST}{prefix}/{page}"
    (shown,) = get(app, at)
    assert shown.headers["content-type"] == "text/html; charset=utf-8"
    found = [one for one in References(shown.text).found if not one.startswith("#")]
    assert not [one for one in found if one.startswith("/") or urlsplit(one).scheme]
    leads_to = {urlsplit(urljoin(at, one)).path.removeprefix(prefix) for one in found}
    assert {"/ui", "/ui/jobs", "/ui/health", "/docs", "/ui/static/page.css"} <= leads_to
    files = [urljoin(at, one) for one in found if "static" in one]
    assert {one.status_code for one in get(app, *files)} == {200}


def test_no_other_server_is_named(api: ASGIApp) -> None:
    page, style = get(api, f"{HOST}/docs", f"{HOST}/docs/swagger-ui.css")
    assert re.findall(r"https?:|['\"(=]\s*//", page.text) == []
    # Swagger UI would ask a service of its own to check the document.
    assert '"validatorUrl": null' in page.text
    loaded = re.findall(r"url\(['\"]?([^)]{,20})|@import", style.text)
    assert loaded
    assert not [one for one in loaded if not one.startswith("data:")]


@pytest.mark.parametrize("name", ["main.py", "__init__.py", "..%2Fmain.py", "swagger-ui.css.map"])
def test_nothing_else_of_the_package_is_served(api: ASGIApp, name: str) -> None:
    (response,) = get(api, f"{HOST}/docs/{name}")
    assert response.status_code == 404
    assert "/docs shows what there is" in response.json()["error"]
