"""The images of the end-to-end tests: a machine with systemd, one with cloud-init too, and a job.

Promise: the machine's system is a Debian, built once; the job's image is a static busybox, made in a
moment.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from tests.e2e.debian import system
from tests.e2e.systemd.engine import Engine, find

PACKAGES = ("systemd", "systemd-sysv", "curl", "ca-certificates")
CLOUD_INIT = "cloud-init"


def machine_image(engine: Engine, *more: str) -> str:
    """Put the machine's image into docker, building it when it is not in the cache; return its name.

    It has `more` packages of Debian's.

    Raises:
        RuntimeError: it can not be built; the text says why.
    """
    name = "-".join(("machine", *more))
    archive = system(name, (*PACKAGES, *more))
    name = f"atemporal-test/{name}"
    engine.run("import", archive, name)
    return name


def push_job_image(
    engine: Engine,
    registry: str,
    *,
    name: str = "job",
    ballast: bytes = b"",
    config: Path | None = None,
) -> str:
    """Put the job's image into the registry, and there alone; return its reference.

    `config` is the folder of docker's client with what opens the registry.
    """
    name = f"{registry}/test/{name}:1"
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.add(find("busybox", "busybox-static"), "bin/busybox")
        link = tarfile.TarInfo("bin/sh")
        link.type, link.linkname = tarfile.SYMTYPE, "busybox"
        archive.addfile(link)
        load = tarfile.TarInfo("ballast")
        load.size = len(ballast)
        archive.addfile(load, io.BytesIO(ballast))
    engine.run("import", "-", name, stdin=content.getvalue())
    engine.run(*(("--config", str(config)) if config else ()), "push", name)
    engine.run("rmi", name)
    return name
