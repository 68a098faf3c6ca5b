"""Which container engine the machines of a twin use, and the `docker` that they find.

Promise: `auto` takes docker, then podman, if its `info` works; with neither, a job's command runs as
a process of the host, and the machine's console has a note of it. Containers of a machine are found
by their label and removed when the machine has ended.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from atemporal.errors import Invalid, Unavailable
from atemporal.twin.containers.passthrough import LABEL

PROCESS = "process"
CHOICES = ("auto", "docker", "podman", PROCESS)
_INFO_WITHIN_S = 10.0
_PACKAGE_PARENT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Engine:
    """`kind` is docker, podman or process; `path` the engine's program, empty for processes."""

    kind: str
    path: str = ""

    @property
    def says(self) -> str:
        """What runs a job, for a reader of the console."""
        if self.kind == PROCESS:
            return "no container engine: jobs run as processes of the host, images are not run"
        return f"containers by {self.path}"

    def as_dict(self) -> dict[str, Any]:
        """The engine as it is in a machine's `boot.json`."""
        return asdict(self)

    def remove_containers(self, instance_id: str) -> None:
        """Remove every container of a machine.

        Raises:
            Unavailable: the engine does not work.
        """
        if self.kind == PROCESS:
            return
        listing = self._run("ps", "--all", "--quiet", "--filter", f"label={LABEL}={instance_id}")
        if ids := listing.split():
            self._run("rm", "--force", "--volumes", *ids)

    def _run(self, *words: str) -> str:
        try:
            done = subprocess.run(
                [self.path, *words], capture_output=True, text=True, check=True, timeout=60
            )
        except (subprocess.SubprocessError, OSError) as error:
            raise Unavailable(f"{self.path} {' '.join(words)}: {error}") from error
        return done.stdout


def detect(choice: str) -> Engine:
    """Find the engine that was asked for.

    Raises:
        Invalid: there is no such choice.
        Unavailable: it is not installed or does not work.
    """
    if choice not in CHOICES:
        raise Invalid({"engine": f"{choice!r} is none of {', '.join(CHOICES)}"})
    if choice == PROCESS:
        return Engine(PROCESS)
    for kind in ("docker", "podman") if choice == "auto" else (choice,):
        path = shutil.which(kind)
        if path and _works(path):
            return Engine(kind, path)
    if choice == "auto":
        return Engine(PROCESS)
    raise Unavailable(f"{choice} is not installed or `{choice} info` fails; start it, or use auto")


def script(engine: dict[str, Any], instance_id: str, root: Path) -> str:
    """The text of a machine's `docker` program."""
    if engine["kind"] == PROCESS:
        module, arguments = "docker", [str(root)]
    else:
        module, arguments = "passthrough", [engine["path"], instance_id]
    exports = {"PYTHONPATH": str(_PACKAGE_PARENT)} | {
        name: os.environ[name]
        for name in ("HOME", "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "XDG_RUNTIME_DIR")
        if name in os.environ and engine["kind"] != PROCESS
    }
    words = [sys.executable, "-S", "-m", f"atemporal.twin.containers.{module}", *arguments]
    lines = [f"export {name}={shlex.quote(value)}" for name, value in exports.items()]
    return "\n".join(["#!/bin/sh", *lines, f'exec {shlex.join(words)} "$@"', ""])


def _works(path: str) -> bool:
    try:
        done = subprocess.run([path, "info"], capture_output=True, timeout=_INFO_WITHIN_S)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
