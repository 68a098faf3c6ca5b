"""`curl` on a machine: the host's own, on a network that can be made to fail.

Promise: without a fault it becomes the host's `curl`. With one, what a machine sends to anybody but
its metadata service gets no connection; or a callback (a PUT, a PATCH or a DELETE) is dropped, sent
twice, or preceded by a forged one: a wrong token, another claim, another exit code. So an API that
believes a forged callback is found out.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from atemporal.twin.faults import fault

NO_CONNECTION = 7
_CALLBACKS = ("PUT", "PATCH", "DELETE")
_PACKAGE_PARENT = Path(__file__).resolve().parents[3]


def script(directory: Path, real: str) -> str:
    """The text of a machine's `curl` program; the machine's files are in the directory."""
    words = [sys.executable, "-S", "-m", "atemporal.twin.machine.curl", str(directory), real]
    return "\n".join(
        [
            "#!/bin/sh",
            f'[ -e {shlex.quote(f"{directory}/{fault.FILE}")} ] || exec {shlex.quote(real)} "$@"',
            f'PYTHONPATH={shlex.quote(str(_PACKAGE_PARENT))} exec {shlex.join(words)} "$@"',
            "",
        ]
    )


class Request:
    """One command line of curl."""

    def __init__(self, real: str, words: list[str]) -> None:
        self._real = real
        self._words = words
        self.method = _after(words, "-X", "--request") or "GET"
        self.url = next((word for word in words if word.startswith(("http://", "https://"))), "")
        reads = any(word.endswith("@-") for word in words)
        self._input = sys.stdin.buffer.read() if reads else None

    def send(self, *, visible: bool) -> int:
        """Send it; return curl's exit code. Its output is shown if it is to be `visible`."""
        return self._curl(self._words, self._input, visible=visible)

    def pretend(self, status: str) -> None:
        """Print what curl would after a response with this status and no body."""
        wanted = _after(self._words, "-w", "--write-out") or ""
        text = wanted.replace("%{http_code}", status).replace("%{response_code}", status)
        sys.stdout.write(text.replace("\\n", "\n"))
        sys.stdout.flush()

    def forge(self) -> None:
        """Send a false one of its kind."""
        with tempfile.NamedTemporaryFile() as false:
            false.write(_false_body(_after(self._words, "--data-binary", "-d", "--data") or ""))
            false.flush()
            words = [_false_token(word) for word in self._words]
            for position, word in enumerate(words[:-1]):
                if word in ("--data-binary", "-d", "--data"):
                    words[position + 1] = f"@{false.name}"
            given = self._input and _false_token(self._input.decode()).encode()
            self._curl(words, given, visible=False)

    def _curl(self, words: list[str], given: bytes | None, *, visible: bool) -> int:
        where = None if visible else subprocess.DEVNULL
        done = subprocess.run([self._real, *words], input=given, stdout=where, stderr=where)
        return done.returncode


def main(directory: Path, real: str, words: list[str]) -> int:
    """Be `curl`; return its exit code."""
    now = time.time()
    active = {kind: one for kind, one in fault.read(directory).items() if one.is_active(now)}
    metadata = os.environ.get("ATEMPORAL_METADATA_URL", "")
    on_network = {"no-network", "no-callback", "twice", "forged"} & active.keys()
    if not on_network or any(metadata and word.startswith(metadata) for word in words):
        os.execv(real, [real, *words])
    request = Request(real, words)
    if "no-network" in active:
        fault.journal(directory, active["no-network"], once=True)
        request.pretend("000")
        return NO_CONNECTION
    if request.method not in _CALLBACKS:
        return request.send(visible=True)
    if request.method == "DELETE" and "no-callback" in active:
        fault.journal(directory, active["no-callback"])
        request.pretend("204")
        return 0
    if "forged" in active:
        request.forge()
        fault.journal(directory, active["forged"])
    if "twice" in active:
        request.send(visible=False)
        fault.journal(directory, active["twice"])
    return request.send(visible=True)


def _after(words: list[str], *options: str) -> str | None:
    found = [later for word, later in pairwise(words) if word in options]
    return found[-1] if found else None


def _false_token(text: str) -> str:
    """The text with the last letter of a bearer's token changed."""

    def change(match: re.Match[str]) -> str:
        token = match[1]
        return f"Bearer {token[:-1]}{'0' if token[-1] != '0' else '1'}"

    return re.sub(r"Bearer (\S+)", change, text)


def _false_body(data: str) -> bytes:
    raw = Path(data[1:]).read_bytes() if data.startswith("@") else data.encode()
    try:
        body = json.loads(raw)
    except ValueError:
        return raw
    if isinstance(body, dict):
        body |= {"claim": "00000000-0000-4000-8000-000000000000"} if "claim" in body else {}
        body |= {"exit_code": 99} if "exit_code" in body else {}
    return json.dumps(body).encode()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
