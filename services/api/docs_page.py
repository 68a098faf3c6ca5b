"""`GET /docs`: Swagger UI over the API's own OpenAPI document.

Promise: a browser needs nothing but this API for it, and the API may be served beneath any prefix that
a proxy takes off without a word: whatever the page names is relative to the page.
Mechanism: the program, its style and its icon are files of the package fastapi-swagger, which follows
Swagger UI's releases.
"""

from __future__ import annotations

from http import HTTPStatus
from importlib.resources import files

from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.exceptions import HTTPException

_SCRIPT, _STYLE, _ICON = "swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"
FILES = {_SCRIPT: "text/javascript", _STYLE: "text/css", _ICON: "image/png"}
"""What the page is made of, beside it under its own name; each with its media type."""


def router() -> APIRouter:
    """Build the page and its files."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/docs")
    async def page(request: Request) -> Response:
        up = _up(request.scope["raw_path"])
        return get_swagger_ui_html(
            openapi_url=f"{up}openapi.json",
            title="atemporal",
            swagger_js_url=f"{up}docs/{_SCRIPT}",
            swagger_css_url=f"{up}docs/{_STYLE}",
            swagger_favicon_url=f"{up}docs/{_ICON}",
            # Else the browser shows our address to a service of Swagger's.
            swagger_ui_parameters={"validatorUrl": None},
        )

    @routes.get("/docs/{name}")
    def file(name: str) -> Response:
        if name not in FILES:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        content = files("fastapi_swagger.resources").joinpath(name).read_bytes()
        return Response(content, media_type=FILES[name])

    return routes


def _up(path: bytes) -> str:
    """The way from the page to what is beside it: `/docs/` is `/docs` to us, not to a browser."""
    return "../" * (len(path) - len(path.rstrip(b"/")))
