"""EC2's query protocol: form parameters in, XML out.

Promise: `parse` and `render` are the same for all actions. Flattened names (`Filter.1.Value.2`) become
nested dicts and lists, nested dicts and lists become XML (a list's elements are `<item>`), so that
an action is a function from one to the other. A failure is an `ApiError`, whose code, text and HTTP
status reach the client in EC2's error document.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"

# XML 1.0 has no way to write these, escaped or not.
_NOT_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class ApiError(Exception):
    """An error response of EC2: its code, its text, its HTTP status."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        self.code = code
        self.message = message
        self.status = status
        super().__init__(f"{code}: {message}")


def parse(form: str) -> dict[str, Any]:
    """Read a form body as nested parameters; all values are text.

    Raises:
        ApiError: one name is used both as a value and as a structure.
    """
    tree: dict[str, Any] = {}
    for name, value in parse_qsl(form, keep_blank_values=True):
        *path, leaf = name.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise _contradiction(name)
        if isinstance(node.get(leaf), dict):
            raise _contradiction(name)
        node[leaf] = value
    return {name: _with_lists(value) for name, value in tree.items()}


def render(action: str, request_id: str, response: Mapping[str, Any]) -> bytes:
    """Write a response as EC2's XML; None is left out, an empty list is not."""
    body = f"<requestId>{request_id}</requestId>{_element_content(response)}"
    return _document(f'<{action}Response xmlns="{NAMESPACE}">{body}</{action}Response>')


def render_error(error: ApiError, request_id: str) -> bytes:
    """Write a failure as EC2's error document."""
    detail = _element_content({"Code": error.code, "Message": error.message})
    return _document(
        f"<Response><Errors><Error>{detail}</Error></Errors>"
        f"<RequestID>{request_id}</RequestID></Response>"
    )


def invalid(name: str, value: str) -> ApiError:
    """The error of a parameter whose value EC2 does not take."""
    return ApiError("InvalidParameterValue", f"Invalid value '{value}' for {name}")


def timestamp(at: float) -> str:
    """Write seconds since the epoch the way EC2 does."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def boolean(text: str | None) -> bool:
    """Read a boolean parameter; absent is false.

    Raises:
        ApiError: it is neither true nor false.
    """
    if text is None or text.lower() == "false":
        return False
    if text.lower() == "true":
        return True
    raise ApiError("InvalidParameterValue", f"Invalid value '{text}' for a boolean parameter")


def integer(name: str, text: str) -> int:
    """Read a whole number; `name` is for the error's text.

    Raises:
        ApiError: it is none.
    """
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise ApiError("InvalidParameterValue", f"Invalid value '{text}' for {name}: not a number")
    return int(text)


def listed(value: object, name: str) -> list[Any]:
    """Return a list parameter; absent is empty.

    Raises:
        ApiError: it was not sent as `Name.1`, `Name.2`, ...
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise ApiError("InvalidParameterValue", f"{name} is a list: write {name}.1, {name}.2, ...")
    return value


def _with_lists(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    if node and all(name.isascii() and name.isdigit() for name in node):
        return [_with_lists(node[name]) for name in sorted(node, key=int)]
    return {name: _with_lists(value) for name, value in node.items()}


def _contradiction(name: str) -> ApiError:
    return ApiError("MalformedQueryString", f"{name} is used both as a value and as a structure")


def _document(element: str) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{element}'.encode()


def _element_content(value: Any) -> str:
    if isinstance(value, Mapping):
        return "".join(
            f"<{name}>{_element_content(item)}</{name}>"
            for name, item in value.items()
            if item is not None
        )
    if isinstance(value, list | tuple):
        return "".join(f"<item>{_element_content(item)}</item>" for item in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return escape(_NOT_XML.sub("\N{REPLACEMENT CHARACTER}", str(value)), {"\r": "&#13;"})
