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
nothing of `coreos`, and powers off by `bootcmd`, which coreos-cloudinit passes over.
"""

from __future__ import annotations

import base64
import gzip
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

# Without a time in it, so that all processes of a release write the same bytes.
_COMPRESSED_AGENT = base64.b64encode(gzip.compress(AGENT.encode(), mtime=0)).decode()

_WRONG_FAMILY = "echo atemporal: this image is not Flatcar >/dev/console; poweroff -f || poweroff"


def document(content: str) -> str:
    """The whole `#cloud-config`, with the manifest's base64."""
    config: dict[str, Any] = {
        "bootcmd": [_WRONG_FAMILY],
        "write_files": [
            {
                "path": "/etc/atemporal/manifest",
                "permissions": "0600",
                "encoding": "base64",
                "content": content,
            },
            {
                "path": "/opt/atemporal/agent",
                "permissions": "0755",
                "encoding": "gz+b64",
                "content": _COMPRESSED_AGENT,
            },
        ],
        "coreos": {
            "units": [
                {"name": "update-engine.service", "mask": True},
                {"name": "locksmithd.service", "mask": True},
                {"name": "atemporal-job.service", "content": JOB_UNIT},
                {
                    "name": "atemporal-deadline.service",
                    "enable": True,
                    "command": "start",
                    "content": DEADLINE_UNIT,
                },
            ]
        },
    }
    text = yaml.dump(config, Dumper=_Dumper, sort_keys=False, width=2**31)
    return f"#cloud-config\n{text}"


# YAML is written once: doing it for each job took nine tenths of an intake's time.
_MARK = "manifest"
_BEFORE, _AFTER = (part.encode() for part in document(_MARK).split(f" {_MARK}\n"))


def render(manifest: bytes) -> bytes:
    """Return the user-data of a machine with this manifest, which begins with its attempt."""
    return b"%b %b\n%b" % (_BEFORE, base64.b64encode(manifest), _AFTER)


FLATCAR = OsFamily(
    name="flatcar",
    image_owner="075585003325",
    image_name="Flatcar-stable-*-hvm",
    image_prefix="Flatcar-",
    architecture="x86_64",
    render=render,
)
"""Its publisher's account and names: flatcar.org, Installing Flatcar on Amazon EC2."""
