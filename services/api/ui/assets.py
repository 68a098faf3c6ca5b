"""The page's own files: one style, one script, one icon.

Promise: nothing else is served. A browser may keep them: another release's have another address.
"""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

_FOLDER: Final = Path(__file__).parent / "static"
TYPES: Final = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_CONTENTS: Final = {name: (_FOLDER / name).read_bytes() for name in TYPES}
ADDRESSES: Final = {
    name: f"ui/static/{name}?v={hashlib.sha256(content).hexdigest()[:12]}"
    for name, content in _CONTENTS.items()
}
"""Where each is, relative to the API's root."""


def routes() -> APIRouter:
    """Build the route."""
    made = APIRouter(include_in_schema=False, prefix="/ui")

    @made.get("/static/{name}")
    async def asset(request: Request, name: str) -> Response:
        if name not in TYPES:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        named = bool(request.query_params.get("v"))
        headers = {
            "Cache-Control": "public, max-age=31536000, immutable" if named else "no-cache",
            "Content-Security-Policy": "default-src 'none'",
            "Cross-Origin-Resource-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
        }
        return Response(_CONTENTS[name], headers=headers, media_type=TYPES[name])

    return made
