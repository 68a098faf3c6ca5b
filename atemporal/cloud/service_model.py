"""botocore's description of EC2, without the hundreds of calls that are not made here.

Promise: a client made of this session sends and reads the calls of `OPERATIONS` as any of botocore's,
and a process takes about 20 MB less.
Mechanism: botocore keeps what a file of its data says, for EC2 830 calls and 4,400 shapes, as
dictionaries for as long as a client lives. Its loader takes another reader of files. This one decodes a
description piece by piece, and keeps the calls of `OPERATIONS` with the shapes that they lead to. Of
the endpoints of all services it keeps those that are asked.
Failure: a call that is not listed is no method of the client. A test compares the list with the calls.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from botocore.session import Session, get_session

OPERATIONS = (
    "CreateTags",
    "DeleteVolume",
    "DescribeImages",
    "DescribeInstanceTypes",
    "DescribeInstances",
    "DescribeVolumes",
    "GetConsoleOutput",
    "RunInstances",
    "TerminateInstances",
)
"""The calls to EC2."""
INSPECTED = (
    "DescribeKeyPairs",
    "DescribeRouteTables",
    "DescribeSecurityGroups",
    "DescribeSubnets",
)
"""The calls that only an inspection makes: no daemon has their descriptions in memory."""

# Those behind the last ones give credentials.
_SERVICES = frozenset({"ec2", "sqs", "sts", "sso", "oidc", "portal.sso"})
_ENDPOINTS = "endpoints.json"
_EC2 = re.compile(r".*/ec2/[^/]+/service-2")
_BETWEEN = re.compile(r"[\s,:]*")
_DECODER = json.JSONDecoder()


def session(more: tuple[str, ...] = ()) -> Session:
    """A session of botocore's, configured as always: by the environment and by AWS's files.

    `more` are calls to EC2 beside `OPERATIONS`.
    """
    made: Session = get_session()
    loader = made.get_component("data_loader")
    loader.file_loader = _Reader(loader.file_loader, (*OPERATIONS, *more))
    return made


class _Reader:
    """A reader of botocore's data files, in place of its own."""

    def __init__(self, usual: Any, operations: tuple[str, ...]) -> None:
        self._usual = usual
        self._operations = operations

    def exists(self, file_path: str) -> bool:
        """Whether there is such a file; its suffix is left out."""
        return bool(self._usual.exists(file_path))

    def load_file(self, file_path: str) -> Any:
        """Return what it says."""
        packed, plain = Path(f"{file_path}.json.gz"), Path(f"{file_path}.json")
        if _EC2.fullmatch(file_path) and packed.is_file():
            text = gzip.decompress(packed.read_bytes()).decode()
            return narrowed(text, self._operations)
        if plain.name == _ENDPOINTS and plain.is_file():
            return asked_endpoints(plain.read_text("utf-8"))
        return self._usual.load_file(file_path)


def narrowed(text: str, wanted_operations: tuple[str, ...] = OPERATIONS) -> dict[str, Any]:
    """Decode a description of a service without what these calls do not lead to."""
    cursor = _Cursor(text)
    model: dict[str, Any] = {}
    places: dict[str, dict[str, int]] = {"operations": {}, "shapes": {}}
    for name in cursor.names():
        if name in places:
            places[name] = {inner: cursor.pass_by() for inner in cursor.names()}
        else:
            model[name] = cursor.value()
    operations = {
        name: _Cursor(text, places["operations"][name]).value() for name in wanted_operations
    }
    shapes: dict[str, Any] = {}
    wanted = set(_shapes_in(operations))
    while wanted:
        name = wanted.pop()
        shapes[name] = _Cursor(text, places["shapes"][name]).value()
        wanted |= set(_shapes_in(shapes[name])) - shapes.keys()
    return {**model, "operations": operations, "shapes": shapes}


def asked_endpoints(text: str) -> dict[str, Any]:
    """Decode the endpoints of all services without those that are not asked."""
    cursor = _Cursor(text)
    found: dict[str, Any] = {}
    for name in cursor.names():
        if name == "partitions":
            found[name] = [_partition(cursor) for _ in cursor.elements()]
        else:
            found[name] = cursor.value()
    return found


def _partition(cursor: _Cursor) -> dict[str, Any]:
    partition: dict[str, Any] = {}
    for name in cursor.names():
        if name != "services":
            partition[name] = cursor.value()
            continue
        services = {inner: cursor.value() for inner in cursor.names() if _asked(cursor, inner)}
        partition[name] = services
    return partition


def _asked(cursor: _Cursor, service: str) -> bool:
    if service not in _SERVICES:
        cursor.pass_by()
    return service in _SERVICES


class _Cursor:
    """A place in a JSON text, which never holds more than one value of it."""

    def __init__(self, text: str, at: int = 0) -> None:
        self._text = text
        self._at = at

    def names(self) -> Iterator[str]:
        """The names in the object that begins here; each value has to be taken or passed by."""
        for _ in self._members("}"):
            yield self.value()

    def elements(self) -> Iterator[None]:
        """The elements of the list that begins here; each has to be taken or passed by."""
        yield from self._members("]")

    def value(self) -> Any:
        """Take the value that begins here."""
        self._skip()
        value, self._at = _DECODER.raw_decode(self._text, self._at)
        return value

    def pass_by(self) -> int:
        """Go to the end of the value that begins here; return where it begins."""
        self._skip()
        at = self._at
        self.value()
        return at

    def _members(self, end: str) -> Iterator[None]:
        self._skip()
        self._at += 1
        self._skip()
        while self._text[self._at] != end:
            yield
            self._skip()
        self._at += 1

    def _skip(self) -> None:
        found = _BETWEEN.match(self._text, self._at)
        self._at = found.end() if found else self._at


def _shapes_in(value: Any) -> Iterator[str]:
    """The names of the shapes that a part of a description refers to."""
    if isinstance(value, Mapping):
        if isinstance(value.get("shape"), str):
            yield value["shape"]
        for inner in value.values():
            yield from _shapes_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _shapes_in(inner)
