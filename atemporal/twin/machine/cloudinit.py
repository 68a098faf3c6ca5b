"""`#cloud-config` as Flatcar's coreos-cloudinit reads it: text in, files and units out.

Promise: pure; the keys `write_files` and `coreos.units` mean what they mean to that program, and
every other key is named in `ignored`, so that a machine can print what it did not apply. Source:
github.com/flatcar/coreos-cloudinit (config/config.go, config/file.go, config/unit.go). The first
line decides, keys are spelled with underscores; that program passes over a hyphenated key in
silence, here it is named. `enable` has no effect, because a machine boots once.
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

_UNIT_KEYS = {"name", "content", "command", "enable", "mask"}
_FILE_KEYS = {"path", "content", "permissions", "encoding"}
_PERMISSIONS = re.compile(r"0?[0-7]{3,4}")
_ADDRESSES = re.compile(r"\$(?:private|public)_ipv[46]")


class NotCloudConfig(Exception):
    """The user-data is not a cloud-config that the machine would apply; the text says why."""


@dataclass(frozen=True)
class File:
    """One entry of `write_files`; `mode` is the permission bits."""

    path: str
    content: bytes
    mode: int


@dataclass(frozen=True)
class UnitEntry:
    """One entry of `coreos.units`."""

    name: str
    content: str
    command: str
    mask: bool


@dataclass(frozen=True)
class CloudConfig:
    """What the machine is to do, in this order."""

    files: tuple[File, ...] = ()
    units: tuple[UnitEntry, ...] = ()
    ignored: tuple[str, ...] = field(default=())


def parse(user_data: bytes, addresses: dict[str, str]) -> CloudConfig:
    """Read user-data; `addresses` gives the values of `private_ipv4` and its like.

    Raises:
        NotCloudConfig: the first line, the compression, the YAML or a value is not what it must be.
    """
    document = _document(user_data, addresses)
    ignored = [key for key in document if key not in ("write_files", "coreos")]
    coreos = _mapping(document.get("coreos") or {}, "coreos")
    ignored += [f"coreos.{key}" for key in coreos if key != "units"]
    files, units = [], []
    for number, entry in enumerate(document.get("write_files") or []):
        entry = _mapping(entry, f"write_files[{number}]")
        ignored += [f"write_files[{number}].{key}" for key in entry if key not in _FILE_KEYS]
        files.append(_file(entry))
    for number, entry in enumerate(coreos.get("units") or []):
        entry = _mapping(entry, f"coreos.units[{number}]")
        ignored += [f"coreos.units[{number}].{key}" for key in entry if key not in _UNIT_KEYS]
        units.append(_unit(entry))
    return CloudConfig(tuple(files), tuple(units), tuple(ignored))


def boot_commands(user_data: bytes) -> tuple[str, ...]:
    """What Canonical's cloud-init, which other families have, would run first of this user-data."""
    try:
        commands = _document(user_data, {}).get("bootcmd") or []
    except NotCloudConfig:
        return ()
    return tuple(str(command) for command in commands)


def _document(user_data: bytes, addresses: dict[str, str]) -> dict[str, Any]:
    if user_data.startswith(b"\x1f\x8b"):
        user_data = _gunzip(user_data, "the user-data")
    try:
        text = user_data.decode()
    except UnicodeDecodeError:
        raise NotCloudConfig("the user-data is not UTF-8 text") from None
    first, _, _ = text.partition("\n")
    if first.rstrip() != "#cloud-config":
        raise NotCloudConfig(f"the first line is {first[:80]!r}, not '#cloud-config'")
    text = _ADDRESSES.sub(lambda match: addresses.get(match[0][1:], ""), text)
    try:
        return _mapping(yaml.load(text, _Loader) or {}, "the document")
    except yaml.YAMLError as error:
        raise NotCloudConfig(f"the YAML can not be read: {error}") from None


def _file(entry: dict[str, Any]) -> File:
    path = str(entry.get("path", ""))
    if not path.startswith("/"):
        raise NotCloudConfig(f"write_files: the path {path!r} is not absolute")
    permissions = str(entry.get("permissions", "0644"))
    if not _PERMISSIONS.fullmatch(permissions):
        raise NotCloudConfig(f"{path}: the permissions {permissions!r} are not octal text")
    content = _decoded(str(entry.get("content", "")), str(entry.get("encoding", "")), path)
    return File(path, content, int(permissions, 8))


def _unit(entry: dict[str, Any]) -> UnitEntry:
    name = str(entry.get("name", ""))
    if not re.fullmatch(r"[A-Za-z0-9:_.@\\-]+\.[a-z]+", name):
        raise NotCloudConfig(f"coreos.units: {name!r} is not a unit's name")
    return UnitEntry(
        name,
        str(entry.get("content") or ""),
        str(entry.get("command") or ""),
        bool(entry.get("mask")),
    )


def _decoded(content: str, encoding: str, path: str) -> bytes:
    raw = content.encode()
    for step in reversed(encoding.split("+")) if encoding else ():
        if step in ("b64", "base64"):
            try:
                raw = base64.b64decode(b"".join(raw.split()), validate=True)
            except binascii.Error as error:
                raise NotCloudConfig(f"{path}: not base64: {error}") from None
        elif step in ("gz", "gzip"):
            raw = _gunzip(raw, path)
        else:
            raise NotCloudConfig(f"{path}: the encoding {encoding!r} is unknown")
    return raw


def _gunzip(raw: bytes, what: str) -> bytes:
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise NotCloudConfig(f"{what}: not gzip: {error}") from None


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise NotCloudConfig(f"{what} is not a mapping")
    return value


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe YAML in which `permissions: 0644` stays the text that its author wrote."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:int"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
