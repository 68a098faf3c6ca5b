"""The images of the end-to-end tests: a machine with systemd, one with cloud-init too, and a job.

Promise: the machine's system is built once by mmdebstrap, from the mirror that this machine's own apt
uses, and kept in the cache folder (`$XDG_CACHE_HOME/atemporal`, else `.cache/` of the repository); an
interrupted build leaves nothing there. The job's image is a static busybox, made in a moment.
"""

from __future__ import annotations

import io
import os
import platform
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tests.e2e.systemd.engine import Engine, find

PACKAGES = ("systemd", "systemd-sysv", "curl", "ca-certificates")
CLOUD_INIT = "cloud-init"
UNNEEDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")


def machine_image(engine: Engine, *more: str) -> str:
    """Put the machine's image into docker, building it when it is not in the cache; return its name.

    It has `more` packages of Debian's.

    Raises:
        RuntimeError: it can not be built; the text says why.
    """
    name = "-".join(("atemporal-test/machine", *more))
    engine.run("import", _system(more), name)
    return name


def push_job_image(
    engine: Engine, registry: str, *, name: str = "job", ballast: bytes = b""
) -> str:
    """Put the job's image into the registry, and there alone; return its reference."""
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
    engine.run("push", name)
    engine.run("rmi", name)
    return name


def _system(more: tuple[str, ...]) -> Path:
    release = platform.freedesktop_os_release()
    suite = release.get("VERSION_CODENAME", "")
    root = Path(__file__).parents[3]
    home = os.environ.get("XDG_CACHE_HOME")
    cache = Path(home) / "atemporal" if home else root / ".cache"
    archive = cache / f"{'-'.join(('machine', *more, suite, platform.machine()))}.tar"
    if not archive.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="machine-", dir=cache) as folder:
            unfinished = Path(folder) / "machine.tar"
            _build(suite, unfinished, more)
            unfinished.replace(archive)
    return archive


def _build(suite: str, archive: Path, more: tuple[str, ...]) -> None:
    mmdebstrap = find("mmdebstrap", "mmdebstrap")
    if os.getuid() != 0:
        raise RuntimeError(
            "building the machine's image needs root, once: run the tests as root, or copy "
            f"a {archive.name} into the cache folder"
        )
    options = ["--mode=root", "--variant=minbase", f"--include={','.join((*PACKAGES, *more))}"]
    options += [f"--dpkgopt=path-exclude={path}" for path in UNNEEDED]
    _call(mmdebstrap, *options, suite, archive, _mirror(suite))


def _mirror(suite: str) -> str:
    """The mirror that apt takes this release from."""
    lines = _call("apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)")
    for line in lines.splitlines():
        release, component, mirror = line.split(maxsplit=2)
        if (release, component) == (suite, "main"):
            return mirror
    raise RuntimeError(
        f"apt's sources on this machine have no {suite} main to build a system from"
    )


def _call(*argv: str | Path) -> str:
    result = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
    if result.returncode:
        end = (result.stdout + result.stderr)[-2000:]
        raise RuntimeError(f"{Path(argv[0]).name} failed:\n{end}")
    return result.stdout
