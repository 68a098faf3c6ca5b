"""A configuration as Ignition reads it: JSON in, files and units out.

Promise: pure; version 3 of the specification, files with a `data:` URL and units of systemd. What is not
modelled makes the whole configuration `NotApplied`, so nothing is silently left out; keys that Ignition
does not know are named in `ignored`, as Ignition warns of them. Source: coreos.github.io/ignition,
Configuration Specification v3.3.0. An enabled unit is started: systemd starts it on the same boot.
"""

from __future__ import annotations

import json
import re
from typing import Any

from atemporal.twin.machine.first_boot import (
    File,
    FirstBoot,
    NotApplied,
    UnitEntry,
    decoded,
    mapping,
    text_of,
    unit_name,
)

NAME = "ignition"
_VERSION = re.compile(r"3\.[0-6]\.0")
_DATA = re.compile(r"data:[^,;]*;base64,(.*)", re.DOTALL)
_KNOWN = {
    "the configuration": {"ignition", "storage", "systemd"},
    "ignition": {"version"},
    "storage": {"files"},
    "systemd": {"units"},
}
_FILE_KEYS = {"path", "mode", "contents", "overwrite"}
_UNIT_KEYS = {"name", "contents", "enabled", "mask"}


def parse(user_data: bytes) -> FirstBoot:
    """Read user-data.

    Raises:
        NotApplied: it is no configuration, or asks for what is not modelled.
    """
    try:
        document = mapping(json.loads(text_of(user_data)), "the configuration")
    except ValueError as error:
        raise NotApplied(f"the JSON can not be read: {error}") from None
    parts = {name: mapping(document.get(name) or {}, name) for name in list(_KNOWN)[1:]}
    version = parts["ignition"].get("version")
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise NotApplied(f"ignition.version: {version!r} is not from 3.0.0 to 3.6.0")
    for where, keys in {"the configuration": document, **parts}.items():
        if unknown := keys.keys() - _KNOWN[where]:
            raise NotApplied(f"{where}: {sorted(unknown)} is not modelled")
    ignored: list[str] = []
    files, units = [], []
    for number, entry in enumerate(parts["storage"].get("files") or []):
        where = f"storage.files[{number}]"
        entry = mapping(entry, where)
        ignored += [f"{where}.{key}" for key in entry if key not in _FILE_KEYS]
        files.append(_file(entry, where))
    for number, entry in enumerate(parts["systemd"].get("units") or []):
        where = f"systemd.units[{number}]"
        entry = mapping(entry, where)
        ignored += [f"{where}.{key}" for key in entry if key not in _UNIT_KEYS]
        units.append(_unit(entry, where))
    return FirstBoot(tuple(files), tuple(units), tuple(ignored))


def _file(entry: dict[str, Any], where: str) -> File:
    path, mode = entry.get("path"), entry.get("mode", 0o644)
    if not isinstance(path, str) or not path.startswith("/"):
        raise NotApplied(f"{where}: the path {path!r} is not absolute")
    if type(mode) is not int or not 0 <= mode <= 0o7777:
        raise NotApplied(f"{where}: the mode {mode!r} is no number of permission bits")
    contents = mapping(entry.get("contents") or {}, f"{where}.contents")
    source, compression = contents.get("source") or "data:;base64,", contents.get("compression")
    data = _DATA.fullmatch(source)
    if data is None:
        raise NotApplied(f"{where}: only data: URLs with base64 are modelled")
    if compression not in (None, "", "gzip"):
        raise NotApplied(f"{where}: the compression {compression!r} is unknown")
    return File(path, decoded(data[1], "gzip+base64" if compression else "base64", path), mode)


def _unit(entry: dict[str, Any], where: str) -> UnitEntry:
    return UnitEntry(
        unit_name(entry.get("name"), where),
        str(entry.get("contents") or ""),
        "start" if entry.get("enabled") else "",
        bool(entry.get("mask")),
    )
