"""Amazon Linux, Debian and Ubuntu: `#cloud-config`, as Canonical's cloud-init reads it.

Promise: the same manifest gives the same bytes, and two renderings differ in the manifest's base64 only.
One document serves all of them. What cloud-init does, in this order: `bootcmd` masks what would restart
docker or the machine, early, before timers run; `write_files` writes the files and the units; `runcmd`
enables and starts the deadline, which brings the job. It is the last stage, and the first that may start
a unit, because none is known to systemd before it is written. No module of cloud-init keeps a later
stage from running by failing. On a later boot nothing of this but `bootcmd` runs, and systemd starts the
deadline.

Docker is on none of these images. The job's unit installs it first, from the packages of the
distribution, under the deadline: `docker_installer`. No module of cloud-init does, because those run
before the deadline could be there.

Failure: docker can not be had: the pull fails, and is reported; the console says what the packages' own
program said. On Flatcar coreos-cloudinit takes this file for its own: it knows nothing of `runcmd`, and
powers off by `coreos`, which is no key of Canonical's (it writes a warning, from 23.4 on).
"""

from __future__ import annotations

from typing import Any

from cloud_config.document import cloud_config, compressed, renderer
from cloud_config.machine_content import (
    AGENT_FILE,
    DEADLINE,
    DISTRIBUTION_UPDATES,
    INSTALLER,
    JOB,
    MANIFEST,
    MANIFEST_MODE,
    installing,
)
from cloud_config.os_family import OsFamily


def document(content: str, gzipped: bool = False) -> str:
    """The whole `#cloud-config`, with the base64 of the manifest or of its gzip."""
    units = (installing(JOB), DEADLINE)
    started = " ".join(unit.name for unit in units if unit.started)
    return cloud_config(
        {
            "bootcmd": [f"systemctl mask {' '.join(DISTRIBUTION_UPDATES)}"],
            "write_files": [
                _file(MANIFEST, MANIFEST_MODE, content, "gz+b64" if gzipped else "b64"),
                *(
                    _file(one.path, one.mode, compressed(one.text), "gz+b64")
                    for one in (AGENT_FILE, INSTALLER)
                ),
                *(
                    _file(
                        f"/etc/systemd/system/{unit.name}", 0o644, compressed(unit.text), "gz+b64"
                    )
                    for unit in units
                ),
            ],
            # Not waited for: the deadline comes at once, the job after everything that it needs.
            "runcmd": [f"systemctl enable --now --no-block {started}"],
            "coreos": {"units": [{"name": "poweroff.target", "command": "start"}]},
        }
    )


def _file(path: str, mode: int, content: str, encoding: str) -> dict[str, Any]:
    return {
        "path": path,
        "permissions": f"{mode:04o}",
        "encoding": encoding,
        "content": content,
    }


_render = renderer(document)

AMAZON_LINUX = OsFamily(
    name="amazon-linux",
    image_owner="137112412989",
    image_name="al2023-ami-2023.*",
    image_prefix="al2023-ami-",
    render=_render,
)
"""The account and the names: Amazon Linux 2023 User Guide, AL2023 on Amazon EC2."""

DEBIAN = OsFamily(
    name="debian",
    image_owner="136693071363",
    # amd64 or arm64, and not the backports, whose names go on otherwise.
    image_name="debian-13-a??64-*",
    image_prefix="debian-",
    render=_render,
)
"""The account and the names: wiki.debian.org, Cloud/AmazonEC2Image."""

UBUNTU = OsFamily(
    name="ubuntu",
    image_owner="099720109477",
    image_name="ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-*-server-*",
    image_prefix="ubuntu/images/",
    render=_render,
)
"""The account and the names: documentation.ubuntu.com, Find Ubuntu images on AWS."""
