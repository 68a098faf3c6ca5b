"""What the demo's jobs run on: an image that is surely here, or else processes of the host.

Promise: `find` returns within a minute and a half, network or not, and what it returns has been tried:
a container of the image has run. With an engine it takes `busybox` if that is here, else pulls it,
else makes an image of this host's own shell; when nothing of it works the jobs are processes of
the host, and `says` tells why.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from atemporal.twin.containers.engine import PROCESS, Engine

BUSYBOX = "docker.io/library/busybox:latest"
HOST_MADE = "localhost/atemporal-demo:latest"
_PROGRAMS = ("sh", "env", "cat", "sleep")
_LIBRARY = re.compile(r"(/\S+) \(0x[0-9a-f]+\)")
_ASK_S = 10.0
_WORK_S = 30.0


@dataclass(frozen=True)
class Ground:
    """`engine` runs `image`; `says` tells a reader how that came about."""

    engine: Engine
    image: str
    says: str

    def remove(self) -> None:
        """Remove the image if it was made for the demo alone."""
        if self.image == HOST_MADE:
            _run(self.engine, "image", "rm", "--force", HOST_MADE)


def find(engine: Engine) -> Ground:
    """Find or make an image that the engine can run."""
    if engine.kind == PROCESS:
        return Ground(engine, BUSYBOX, engine.says)
    image, how = _image(engine)
    if image:
        ground = Ground(engine, image, f"{engine.says}; {how}")
        failure = _try(engine, image)
        if failure is None:
            return ground
        ground.remove()
        how = f"a container of {image} does not run there: {failure}"
    return Ground(
        Engine(PROCESS),
        BUSYBOX,
        f"jobs run as processes of the host, because with {engine.path} {how}",
    )


def _image(engine: Engine) -> tuple[str, str]:
    """An image's name, or none, and where it is from or why there is none."""
    if _run(engine, "image", "inspect", BUSYBOX, within_s=_ASK_S) is None:
        return BUSYBOX, "the image busybox is here"
    not_pulled = _run(engine, "pull", "--quiet", BUSYBOX)
    if not_pulled is None:
        return BUSYBOX, "the image busybox was pulled"
    packed = _pack()
    if packed is None:
        return "", f"busybox can not be pulled ({not_pulled})"
    not_made = _run(engine, "import", "-", HOST_MADE, given=packed)
    if not_made is None:
        return HOST_MADE, f"{HOST_MADE} is made of this host's shell (no busybox: {not_pulled})"
    return "", f"busybox can not be pulled ({not_pulled}), nor an image be made ({not_made})"


def _try(engine: Engine, image: str) -> str | None:
    name = f"atemporal-demo-{os.getpid()}"
    failure = _run(engine, "run", "--name", name, image, "/bin/sh", "-c", "exit 0")
    _run(engine, "rm", "--force", name)
    return failure


def _run(engine: Engine, *words: str, given: bytes = b"", within_s: float = _WORK_S) -> str | None:
    """Do it; return nothing, or in one line why it failed."""
    try:
        done = subprocess.run(
            [engine.path, *words],
            input=given,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=within_s,
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {within_s:.0f} s"
    if done.returncode == 0:
        return None
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else f"exit code {done.returncode}"


def _pack() -> bytes | None:
    """This host's shell and what it needs, as a tar; None where programs are not made like that."""
    ldd = shutil.which("ldd")
    programs = {name: shutil.which(name) for name in _PROGRAMS}
    if ldd is None or not os.path.exists("/proc/self/exe"):
        return None
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", dereference=True) as tar:
        libraries: set[str] = set()
        for name, path in programs.items():
            if path is None:
                return None
            tar.add(Path(path).resolve(), f"bin/{name}")
            # A static program has none, which ldd calls a failure.
            listed = subprocess.run([ldd, path], capture_output=True, text=True, timeout=_ASK_S)
            libraries.update(_LIBRARY.findall(listed.stdout))
        for library in sorted(libraries):
            tar.add(Path(library).resolve(), library.lstrip("/"))
    return packed.getvalue()
