"""Flatcar Container Linux: `#cloud-config`, as its coreos-cloudinit reads it.

Promise: the same manifest gives the same bytes, and two renderings differ in the manifest's base64 only.
The agent is compressed, which leaves a job's environment as much more room (github.com/flatcar/
coreos-cloudinit, config/file.go: `gz+b64`).
Units are written, masked and enabled first, then commands are called one after the other, on every
boot. There is one command, because each waits for a signal of systemd that coreos-cloudinit loses on a
busy boot, and then no later one is called (docs/adr/0025). It starts the deadline, which brings the job
and stops the update services by itself. The deadline is enabled as well, so that a later boot powers
off even if this file is not applied again.

Failure: on an image of another family Canonical's cloud-init may take this file for its own. It knows
nothing of `coreos`, and powers off by `bootcmd`, which coreos-cloudinit passes over. On some boots
coreos-cloudinit does nothing (github.com/flatcar/Flatcar, issue 2020): `flatcar-ignition` boots the same
images without it.
"""

from __future__ import annotations

from typing import Any

from cloud_config.document import cloud_config, compressed, renderer
from cloud_config.machine_content import (
    AGENT_FILE,
    COREOS_UPDATES,
    DEADLINE,
    JOB,
    MANIFEST,
    MANIFEST_MODE,
)
from cloud_config.os_family import OsFamily

_AGENT = compressed(AGENT_FILE.text)
_WRONG_FAMILY = "echo atemporal: this image is not Flatcar >/dev/console; poweroff -f || poweroff"
# Fedora's is on no image that reads this file.
_UPDATES = COREOS_UPDATES[:2]


def document(content: str, gzipped: bool = False) -> str:
    """The whole `#cloud-config`, with the base64 of the manifest or of its gzip."""
    units: list[dict[str, Any]] = [{"name": name, "mask": True} for name in _UPDATES]
    for unit in (JOB, DEADLINE):
        begin = {"enable": True, "command": "start"} if unit.started else {}
        units.append({"name": unit.name, **begin, "content": unit.text})
    return cloud_config(
        {
            "bootcmd": [_WRONG_FAMILY],
            "write_files": [
                {
                    "path": MANIFEST,
                    "permissions": f"{MANIFEST_MODE:04o}",
                    "encoding": "gz+b64" if gzipped else "base64",
                    "content": content,
                },
                {
                    "path": AGENT_FILE.path,
                    "permissions": f"{AGENT_FILE.mode:04o}",
                    "encoding": "gz+b64",
                    "content": _AGENT,
                },
            ],
            "coreos": {"units": units},
        }
    )


FLATCAR = OsFamily(
    name="flatcar",
    image_owner="075585003325",
    image_name="Flatcar-stable-*-hvm",
    image_prefix="Flatcar-",
    render=renderer(document),
)
"""Its publisher's account and names: flatcar.org, Installing Flatcar on Amazon EC2."""
