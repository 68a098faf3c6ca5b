"""The programs of others that do the work (terraform, aws, docker), and the refusal without one.

Promise: `Needs` collects all that is missing and tells it at once, each with what to do; nothing has
been done by then. `Tools` runs a program, shows what it runs, and raises when it fails, with its words.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hcl2

from atemporal.errors import Invalid, Refused
from deploy.terraform.configuration import plain

FOLDER = Path(__file__).parents[1] / "terraform"
NAME = re.compile(r"[a-z][a-z0-9-]{0,14}[a-z0-9]")
IMAGE = re.compile(r"[a-z0-9./_-]+(:[A-Za-z0-9._-]+|@sha256:[0-9a-f]{64})")


@dataclass
class Tools:
    """Runs programs; `sleep` and `now` are the clock's, so that a test need not wait."""

    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.monotonic

    def run(self, *argv: str, cwd: Path | None = None, feed: str | None = None) -> None:
        """Run a program that speaks to the person; show the command.

        Raises:
            Refused: it failed.
        """
        print(f"$ {shlex.join(argv)}", flush=True)
        done = subprocess.run(
            argv, cwd=cwd, input=feed, text=True, check=False, env=self._environment()
        )
        if done.returncode:
            raise Refused(f"{argv[0]} failed (exit code {done.returncode}): see above")

    def ask(self, *argv: str, cwd: Path | None = None) -> str:
        """Run a program for its answer.

        Raises:
            Refused: it failed; with its own words.
        """
        done = subprocess.run(
            argv,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env=self._environment(),
        )
        if done.returncode:
            words = done.stderr.strip() or f"exit code {done.returncode}"
            raise Refused(f"{shlex.join(argv[:3])}: {words}")
        return done.stdout.strip()

    def json(self, *argv: str) -> Any:
        """Run a program for its answer in JSON."""
        return json.loads(self.ask(*argv, "--output", "json") or "null")

    @staticmethod
    def _environment() -> dict[str, str]:
        # A pager would wait for a key that nobody presses.
        return os.environ | {"AWS_PAGER": ""}


@dataclass
class Needs:
    """What a command can not do without; `check` tells all that is missing."""

    tools: Tools
    missing: dict[str, str] = field(default_factory=dict)

    def programs(self, **where: str) -> None:
        """Programs on the path, each with where it comes from."""
        for name, source in where.items():
            if shutil.which(name) is None:
                self.missing[name] = f"not installed: {source}"

    def credentials(self) -> str:
        """AWS credentials; returns the account, or "" if there are none."""
        if shutil.which("aws") is None:
            self.missing.setdefault("aws", "not installed: https://aws.amazon.com/cli/")
            return ""
        try:
            who = self.tools.json("aws", "sts", "get-caller-identity")
        except Refused as error:
            self.missing["AWS credentials"] = (
                f"{error}; log in (aws sso login), or set AWS_PROFILE, or the keys of an account"
            )
            return ""
        return str(who["Account"])

    def value(self, name: str, value: str, pattern: re.Pattern[str], how: str) -> None:
        """A variable of make's."""
        if not value:
            self.missing[name] = f"not given: {how}"
        elif not pattern.fullmatch(value):
            self.missing[name] = f"{value!r} can not be one: {how}"

    def check(self) -> None:
        """Refuse if anything is missing.

        Raises:
            Invalid: with all that is.
        """
        if self.missing:
            raise Invalid(self.missing)


@dataclass(frozen=True)
class Deployment:
    """A deployment's name, and its variables' file."""

    name: str
    region: str
    size: str

    @property
    def file(self) -> Path:
        """Its variables."""
        return FOLDER / f"{self.name}.tfvars"

    @classmethod
    def find(cls, needs: Needs, name: str) -> Deployment:
        """Read the variables that are needed here; what is missing is in `needs`."""
        needs.value(
            "DEPLOYMENT",
            name,
            NAME,
            "make ... DEPLOYMENT=production, 2 to 16 small letters, digits and hyphens",
        )
        found = cls(name, "", "small")
        if "DEPLOYMENT" in needs.missing:
            return found
        if not found.file.exists():
            needs.missing[f"{name}.tfvars"] = (
                f"not there: copy {FOLDER / 'example.tfvars'} to {found.file}, and edit it"
            )
            return found
        try:
            values = plain(hcl2.loads(found.file.read_text()))
        except Exception as error:  # noqa: BLE001 - the parser raises errors of its grammar's library
            needs.missing[found.file.name] = f"no HCL: {str(error).splitlines()[0]}"
            return found
        if not values.get("region"):
            needs.missing[found.file.name] = "it has no region"
        return cls(name, str(values.get("region", "")), str(values.get("size", "small")))


def agree(question: str, answer: str, *, given: str = "") -> None:
    """Ask a person to type `answer`, unless it was given already.

    Raises:
        Refused: something else was typed, or nobody is there to type.
    """
    typed = given
    if not given:
        print(question, end=" ", flush=True)
        typed = sys.stdin.readline().strip()
    if typed != answer:
        raise Refused(f"{typed!r} is not {answer!r}: nothing has been done")
