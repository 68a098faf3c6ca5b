"""A JSON object from bytes, as every door reads it: strictly.

Promise: each name stands once, numbers are numbers of JSON, and what is no object is refused with a
sentence for whoever wrote it.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from atemporal.errors import Invalid

_GZIP = b"\x1f\x8b"


def read_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        Invalid: it is none, or a name is in it twice; for the field `body`.
    """
    if body.startswith(_GZIP):
        raise Invalid({"body": "is compressed with gzip; send plain JSON"})
    try:
        # As `json.loads` reads bytes, which would make a decoder each time.
        value = _DECODER.decode(body.decode(json.detect_encoding(body), "surrogatepass"))
    except _Twice as error:
        raise Invalid({"body": f"is JSON with the name {error.name!a:.100} twice"}) from None
    except (ValueError, RecursionError):
        raise Invalid({"body": "is not JSON"}) from None
    if not isinstance(value, dict):
        raise Invalid({"body": "is JSON, but not an object of fields"})
    return value


class _Twice(ValueError):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _Twice(name)
            seen.add(name)
    return fields


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_number)
