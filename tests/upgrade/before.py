"""The release before, as it was kept: its code, its programs as processes, its messages.

Promise: what runs here is the kept code alone; nothing of the present tree is imported by it.
Mechanism: a process gets the unpacked archive as PYTHONPATH, which comes before what is installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
ARCHIVE = Path(__file__).with_name("before.tar.xz")
STEPS = "atemporal/migrations/versions"
MESSAGES = "tests/unit/messages"


@dataclass(frozen=True)
class Before:
    """The release before, unpacked."""

    root: Path
    commit: str

    @property
    def env(self) -> Mapping[str, str]:
        """What makes a Python process one of that release."""
        return {"PYTHONPATH": str(self.root)}

    @property
    def step(self) -> str:
        """The last step of its migrations."""
        return max(path.name[:4] for path in (self.root / STEPS).glob("[0-9]*.py"))

    def run(
        self, *argv: str, env: Mapping[str, str] | None = None, within_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run `python ARGV...` in that release's folder; what it printed is text."""
        return subprocess.run(
            [sys.executable, *argv],
            cwd=self.root,
            env={**(env or os.environ), **self.env},
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )

    def cli(self, *words: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run that release's `atemporal WORDS...`."""
        return self.run("-c", "from atemporal.start import cli; cli()", *words, env=env)


def unpack(directory: Path) -> Before:
    """Unpack the archive; its header names the commit."""
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is not None:
                path = directory / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.read())
        return Before(directory, archive.pax_headers["comment"])
