"""Systems of this machine's own Debian, for images that no registry has to be asked for.

Promise: a system is built once by mmdebstrap, from the mirror that this machine's own apt uses, and kept
in the cache folder (`$XDG_CACHE_HOME/atemporal`, else `.cache/` of the repository); an interrupted build
leaves nothing there.
"""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.systemd.engine import find

UNNEEDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")


def system(name: str, packages: Sequence[str]) -> Path:
    """The tar file of a minimal system with these packages, for `docker import`.

    Raises:
        RuntimeError: it can not be built; the text says why.
    """
    release = platform.freedesktop_os_release()
    suite = release.get("VERSION_CODENAME", "")
    root = Path(__file__).parents[2]
    home = os.environ.get("XDG_CACHE_HOME")
    cache = Path(home) / "atemporal" if home else root / ".cache"
    archive = cache / f"{name}-{suite}-{platform.machine()}.tar"
    if not archive.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=cache) as folder:
            unfinished = Path(folder) / "system.tar"
            _build(suite, packages, unfinished, archive.name)
            unfinished.replace(archive)
    return archive


def _build(suite: str, packages: Sequence[str], archive: Path, wanted: str) -> None:
    mmdebstrap = find("mmdebstrap", "mmdebstrap")
    if os.getuid() != 0:
        raise RuntimeError(
            "building an image's system needs root, once: run the tests as root, or copy "
            f"a {wanted} into the cache folder"
        )
    options = ["--mode=root", "--variant=minbase", f"--include={','.join(packages)}"]
    options += [f"--dpkgopt=path-exclude={path}" for path in UNNEEDED]
    # Ubuntu has a part of Debian's main there.
    if platform.freedesktop_os_release()["ID"] == "ubuntu":
        options.append("--components=main,universe")
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
