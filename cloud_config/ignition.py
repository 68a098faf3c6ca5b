"""Flatcar Container Linux and Fedora CoreOS by Ignition, which writes everything before systemd starts.

Promise: the same manifest gives the same bytes, and two renderings differ in the manifest's base64 only.
One document serves both systems, so that an image of the other one is none of a wrong family: both read
version 3.3.0 of the specification, and to mask a unit that is not there does no harm.
Ignition runs once, in the initramfs of the first boot. Units are masked before anything could start
them; the deadline is enabled, so that systemd starts it on this boot as on every later one, and it
brings the job. No program stands between the two: what coreos-cloudinit loses can not be lost here.

Failure: what Ignition can not apply leaves a machine that does not boot, and nothing of ours runs there;
the reaper ends it. What can be known before is checked before: the file's own rules by
`ignition-validate` in the tests, the image's family before each launch. Canonical's cloud-init does
nothing with this file.
"""

from __future__ import annotations

import json
from typing import Any

from cloud_config.document import compressed, renderer
from cloud_config.machine_content import (
    AGENT_FILE,
    COREOS_UPDATES,
    DEADLINE,
    JOB,
    MANIFEST,
    MANIFEST_MODE,
)
from cloud_config.os_family import OsFamily

SPECIFICATION = "3.3.0"
_AGENT = compressed(AGENT_FILE.text)


def document(content: str, gzipped: bool = False) -> str:
    """The whole configuration, with the base64 of the manifest or of its gzip."""
    units: list[dict[str, Any]] = [{"name": name, "mask": True} for name in COREOS_UPDATES]
    for unit in (JOB, DEADLINE):
        enabled = {"enabled": True} if unit.started else {}
        units.append({"name": unit.name, **enabled, "contents": unit.text})
    config = {
        "ignition": {"version": SPECIFICATION},
        "storage": {
            "files": [
                _file(MANIFEST, MANIFEST_MODE, content, gzipped=gzipped),
                _file(AGENT_FILE.path, AGENT_FILE.mode, _AGENT, gzipped=True),
            ]
        },
        "systemd": {"units": units},
    }
    return json.dumps(config, separators=(",", ":"))


def _file(path: str, mode: int, content: str, *, gzipped: bool) -> dict[str, Any]:
    how = {"compression": "gzip"} if gzipped else {}
    return {"path": path, "mode": mode, "contents": {**how, "source": f"data:;base64,{content}"}}


_render = renderer(document)

FLATCAR_IGNITION = OsFamily(
    name="flatcar-ignition",
    image_owner="075585003325",
    image_name="Flatcar-stable-*-hvm",
    image_prefix="Flatcar-",
    render=_render,
)
"""Its publisher's account and names: flatcar.org, Installing Flatcar on Amazon EC2."""

FCOS = OsFamily(
    name="fcos",
    image_owner="125523088429",
    # The third number of a version is its stream: 1 next, 2 testing, 3 stable.
    image_name="fedora-coreos-*.*.3.*",
    image_prefix="fedora-coreos-",
    render=_render,
)
"""The account is Fedora's: docs.fedoraproject.org, Provisioning Fedora CoreOS on AWS; the numbers of
streams: the same place, Update streams."""
