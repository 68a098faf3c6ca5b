"""`#cloud-config` as Flatcar's coreos-cloudinit reads it: text in, files and units out.

Promise: pure; the keys `write_files` and `coreos.units` mean what they mean to that program, and
every other key is named in `ignored`, so that a machine can print what it did not apply. Source:
github.com/flatcar/coreos-cloudinit (config/config.go, config/file.go, config/unit.go). The first
line decides, keys are spelled with underscores; that program passes over a hyphenated key in
silence, here it is named. `enable` has no effect, because a machine boots once.
"""

from __future__ import annotations

import re
from typing import Any

from atemporal.twin.machine.first_boot import (
    File,
    FirstBoot,
    NotApplied,
    UnitEntry,
    cloud_config,
    decoded,
    mapping,
    permissions,
    text_of,
    unit_name,
)

NAME = "coreos-cloudinit"
_UNIT_KEYS = {"name", "content", "command", "enable", "mask"}
_FILE_KEYS = {"path", "content", "permissions", "encoding"}
_ADDRESSES = re.compile(r"\$(?:private|public)_ipv[46]")


def parse(user_data: bytes, addresses: dict[str, str]) -> FirstBoot:
    """Read user-data; `addresses` gives the values of `private_ipv4` and its like.

    Raises:
        NotApplied: the first line, the compression, the YAML or a value is not what it must be.
    """
    text = _ADDRESSES.sub(lambda match: addresses.get(match[0][1:], ""), text_of(user_data))
    document = cloud_config(text)
    ignored = [key for key in document if key not in ("write_files", "coreos")]
    coreos = mapping(document.get("coreos") or {}, "coreos")
    ignored += [f"coreos.{key}" for key in coreos if key != "units"]
    files, units = [], []
    for number, entry in enumerate(document.get("write_files") or []):
        entry = mapping(entry, f"write_files[{number}]")
        ignored += [f"write_files[{number}].{key}" for key in entry if key not in _FILE_KEYS]
        files.append(written(entry))
    for number, entry in enumerate(coreos.get("units") or []):
        entry = mapping(entry, f"coreos.units[{number}]")
        ignored += [f"coreos.units[{number}].{key}" for key in entry if key not in _UNIT_KEYS]
        units.append(_unit(entry))
    return FirstBoot(tuple(files), tuple(units), tuple(ignored))


def written(entry: dict[str, Any]) -> File:
    """A file of `write_files`, which both programs of that name read alike.

    Raises:
        NotApplied: a value is not what it must be.
    """
    path = str(entry.get("path", ""))
    if not path.startswith("/"):
        raise NotApplied(f"write_files: the path {path!r} is not absolute")
    mode = permissions(str(entry.get("permissions", "0644")), path)
    content = decoded(str(entry.get("content", "")), str(entry.get("encoding", "")), path)
    return File(path, content, mode)


def _unit(entry: dict[str, Any]) -> UnitEntry:
    return UnitEntry(
        unit_name(entry.get("name"), "coreos.units"),
        str(entry.get("content") or ""),
        str(entry.get("command") or ""),
        bool(entry.get("mask")),
    )
