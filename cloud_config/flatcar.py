"""Flatcar Container Linux: `#cloud-config`, as its coreos-cloudinit reads it.

Promise: the same manifest gives the same bytes, and two renderings differ in the manifest's base64 only.
Units are written, masked and enabled first, then started one after the other in the order below, on
every boot. They are enabled as well, so that a later boot powers off even if this file is not
applied again. Update services are masked without `command: stop`, which can hang the whole file;
the deadline's unit stops them.
"""

from __future__ import annotations

import base64
from typing import Any

import yaml

from cloud_config import AGENT, DEADLINE_UNIT, JOB_UNIT
from cloud_config.os_family import OsFamily


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as it is (`|`), for the eyes of whoever debugs a machine."""

    def expect_scalar(self) -> None:
        """One space before each line: two are a quarter kilobyte less for a job's environment."""
        usual, self.best_indent = self.best_indent, 1
        super().expect_scalar()
        self.best_indent = usual


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def render(manifest: bytes) -> bytes:
    """Return the user-data of a machine with this manifest."""
    config: dict[str, Any] = {
        "write_files": [
            {
                "path": "/etc/atemporal/manifest",
                "permissions": "0600",
                "encoding": "base64",
                "content": base64.b64encode(manifest).decode(),
            },
            {"path": "/opt/atemporal/agent", "permissions": "0755", "content": AGENT},
        ],
        "coreos": {
            "units": [
                {"name": "update-engine.service", "mask": True},
                {"name": "locksmithd.service", "mask": True},
                _unit("atemporal-deadline.service", DEADLINE_UNIT),
                _unit("atemporal-job.service", JOB_UNIT),
            ]
        },
    }
    text = yaml.dump(config, Dumper=_Dumper, sort_keys=False, width=2**31)
    return b"#cloud-config\n" + text.encode()


def _unit(name: str, content: str) -> dict[str, Any]:
    return {"name": name, "enable": True, "command": "start", "content": content}


FLATCAR = OsFamily(
    name="flatcar",
    image_owner="075585003325",
    image_name="Flatcar-stable-*-hvm",
    architecture="x86_64",
    render=render,
)
"""Its publisher's account and names: flatcar.org, Installing Flatcar on Amazon EC2."""
