"""`#cloud-config` as Canonical's cloud-init reads it: text in, files and units out.

Promise: pure; `bootcmd`, `write_files` and `runcmd` in their order, every other key is named in
`ignored`. Of commands those of `systemctl` that start or mask units are modelled, and a power-off; any
other is named as well, and is not run: it would act on the host. Source: docs.cloud-init.io, Module
reference (Bootcmd, Write Files, Runcmd). A unit is one of the files in `/etc/systemd/system`.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from atemporal.twin.machine.cloudinit import written
from atemporal.twin.machine.first_boot import (
    File,
    FirstBoot,
    UnitEntry,
    cloud_config,
    mapping,
    text_of,
)

NAME = "cloud-init"
_KEYS = ("bootcmd", "write_files", "runcmd")
_FILE_KEYS = {"path", "content", "permissions", "encoding"}
_UNITS = PurePosixPath("/etc/systemd/system")
_MASKS, _STARTS = ("mask",), ("enable --now --no-block", "start --no-block", "start")


def parse(user_data: bytes) -> FirstBoot:
    """Read user-data.

    Raises:
        NotApplied: the first line, the YAML or a value is not what it must be.
    """
    document = cloud_config(text_of(user_data))
    ignored = [key for key in document if key not in _KEYS]
    files: list[File] = []
    masked: list[str] = []
    started: list[str] = []
    for command in _commands(document, "bootcmd"):
        if "poweroff" in command:
            return FirstBoot(off=command)
        if names := _units(command, _MASKS):
            masked += names
        else:
            ignored.append(f"bootcmd: {command}")
    for number, entry in enumerate(document.get("write_files") or []):
        entry = mapping(entry, f"write_files[{number}]")
        ignored += [f"write_files[{number}].{key}" for key in entry if key not in _FILE_KEYS]
        files.append(written(entry))
    for command in _commands(document, "runcmd"):
        if names := _units(command, _STARTS):
            started += names
        else:
            ignored.append(f"runcmd: {command}")
    contents = {
        PurePosixPath(one.path).name: one.content.decode(errors="replace")
        for one in files
        if PurePosixPath(one.path).parent == _UNITS
    }
    units = [UnitEntry(name, "", "", mask=True) for name in masked]
    units += [UnitEntry(name, text, "", mask=False) for name, text in contents.items()]
    # Started last, when all of them are known.
    units += [UnitEntry(name, "", "start", mask=False) for name in started]
    return FirstBoot(tuple(files), tuple(units), tuple(ignored))


def _commands(document: dict[str, Any], key: str) -> list[str]:
    return [
        " ".join(map(str, command)) if isinstance(command, list) else str(command)
        for command in document.get(key) or []
    ]


def _units(command: str, verbs: tuple[str, ...]) -> list[str]:
    """The units of a command `systemctl VERB UNIT...`; none where it is another command."""
    for verb in verbs:
        rest = command.removeprefix(f"systemctl {verb} ")
        if rest != command and all(name.rpartition(".")[0] for name in rest.split()):
            return rest.split()
    return []
