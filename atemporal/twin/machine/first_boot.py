"""What a machine is to do at its first boot, whatever its user-data is written in.

Promise: pure. Each reader (`cloudinit`, `ignition`, `canonical`) turns the bytes into a `FirstBoot`, and
what the machine will not apply is named in `ignored`. Which one reads is the image's affair: `PROGRAMS`.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import re
import zlib
from dataclasses import dataclass, field
from typing import Any

import yaml


class NotApplied(Exception):
    """The user-data is none that the machine would apply; the text says why."""


@dataclass(frozen=True)
class File:
    """A file to write; `mode` is the permission bits."""

    path: str
    content: bytes
    mode: int


@dataclass(frozen=True)
class UnitEntry:
    """A unit of systemd: what it is made of, whether it is masked, and the command for it."""

    name: str
    content: str
    command: str
    mask: bool


@dataclass(frozen=True)
class FirstBoot:
    """What the machine is to do, in this order. With `off` it powers off before anything else."""

    files: tuple[File, ...] = ()
    units: tuple[UnitEntry, ...] = ()
    ignored: tuple[str, ...] = field(default=())
    off: str = ""


def permissions(text: str, path: str) -> int:
    """Octal text as permission bits.

    Raises:
        NotApplied: it is none.
    """
    if not re.fullmatch(r"0?[0-7]{3,4}", text):
        raise NotApplied(f"{path}: the permissions {text!r} are not octal text")
    return int(text, 8)


def decoded(content: str, encoding: str, path: str) -> bytes:
    """A file's content, of which the last step of the encoding is undone first.

    Raises:
        NotApplied: it is not of that encoding.
    """
    raw = content.encode()
    for step in reversed(encoding.split("+")) if encoding else ():
        if step in ("b64", "base64"):
            try:
                raw = base64.b64decode(b"".join(raw.split()), validate=True)
            except binascii.Error as error:
                raise NotApplied(f"{path}: not base64: {error}") from None
        elif step in ("gz", "gzip"):
            raw = unzipped(raw, path)
        else:
            raise NotApplied(f"{path}: the encoding {encoding!r} is unknown")
    return raw


def unzipped(raw: bytes, what: str) -> bytes:
    """What a gzip file holds.

    Raises:
        NotApplied: it is none.
    """
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise NotApplied(f"{what}: not gzip: {error}") from None


def unit_name(value: Any, where: str) -> str:
    """The name of a unit.

    Raises:
        NotApplied: it is none.
    """
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9:_.@\\-]+\.[a-z]+", value):
        raise NotApplied(f"{where}: {value!r} is not a unit's name")
    return value


def mapping(value: Any, what: str) -> dict[str, Any]:
    """The value itself.

    Raises:
        NotApplied: it is no mapping.
    """
    if not isinstance(value, dict):
        raise NotApplied(f"{what} is not a mapping")
    return value


def text_of(user_data: bytes) -> str:
    """User-data as text, which may come as a gzip.

    Raises:
        NotApplied: it is no UTF-8.
    """
    if user_data.startswith(b"\x1f\x8b"):
        user_data = unzipped(user_data, "the user-data")
    try:
        return user_data.decode()
    except UnicodeDecodeError:
        raise NotApplied("the user-data is not UTF-8 text") from None


def cloud_config(text: str) -> dict[str, Any]:
    """The mapping of a `#cloud-config`.

    Raises:
        NotApplied: the first line or the YAML is not what it must be.
    """
    first, _, _ = text.partition("\n")
    if first.rstrip() != "#cloud-config":
        raise NotApplied(f"the first line is {first[:80]!r}, not '#cloud-config'")
    try:
        return mapping(yaml.load(text, _Loader) or {}, "the document")
    except yaml.YAMLError as error:
        raise NotApplied(f"the YAML can not be read: {error}") from None


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe YAML in which `permissions: 0644` stays the text that its author wrote."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:int"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
