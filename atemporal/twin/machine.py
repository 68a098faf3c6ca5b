"""One machine of the twin: a process that boots on a user-data, runs it, and ends when powered
off.

Promise: `python -m atemporal.twin.machine DIR` executes DIR/user-data under the root DIR/root and
nowhere else: files of the cloud-config are written there, units run with that directory before
every path that exists in it, and with its `usr/bin` first in PATH, where `docker`, `systemctl`, `curl`
and all that could power off the host have stand-ins. What the machine says on its console is in
DIR/console, what its units print in DIR/journal/. SIGTERM is the power button.

DIR holds `boot.json` (see `host`), and gets `machine.json` (this process, once it runs) and
`ended.json` (once it has powered off by itself or by the button); without the latter it crashed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

from atemporal.twin import cloudinit, curl, engine, mishaps, processes
from atemporal.twin.books import replace_file
from atemporal.twin.init import Init, serve_requests

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STOP_CONTAINERS_WITHIN_S = 2.0

# Programs that would act on the host; the machine has stand-ins for them, wherever a path says.
_STAND_INS = (
    *("docker", "systemctl", "systemd-run", "poweroff", "shutdown", "reboot", "halt"),
    *("init", "telinit", "loginctl", "busctl"),
)
_HOSTS_OWN = re.compile(rf"(?<![\w./-])/(?:usr/)?s?bin/(?=(?:{'|'.join(_STAND_INS)})\b)")

_SYSTEMCTL = """#!/bin/sh
# systemctl of a twin's machine: what it can do is written to the machine's first process.
for word; do
  case $word in
    --no-block | -q | --quiet | --now) ;;
    -f | --force) force=force ;;
    -*) echo "systemctl: $word is not modelled" >&2; exit 1 ;;
    *) if [ -z "$verb" ]; then verb=$word; else names="$names $word"; fi ;;
  esac
done
case $verb in
  poweroff) echo "poweroff $force" >"$ATEMPORAL_ROOT/run/init" ;;
  start | stop) for name in $names; do echo "$verb $name" >"$ATEMPORAL_ROOT/run/init"; done ;;
  *) echo "systemctl: '$verb' is not modelled" >&2; exit 1 ;;
esac
"""
_POWEROFF = '#!/bin/sh\nexec "${0%/*}/systemctl" poweroff\n'
_REFUSE = '#!/bin/sh\necho "${0##*/} is not modelled on this machine" >&2\nexit 1\n'


class Unbootable(Exception):
    """The user-data would harm the host or can not be applied; the text says why."""


class Machine:
    """The machine's root, its console, and the way commands get there."""

    def __init__(self, directory: Path) -> None:
        boot: dict[str, Any] = json.loads((directory / "boot.json").read_bytes())
        self.root = directory / "root"
        self._journal = directory / "journal"
        self._boot = boot
        self._since = time.monotonic()
        self._build_root()
        self._console = Console(self.root / "dev/console", directory / "console")
        self.environment = {
            "PATH": f"{self.root}/usr/bin:{os.environ.get('PATH', SYSTEM_PATH)}",
            "LANG": "C.UTF-8",
            "ATEMPORAL_ROOT": str(self.root),
            "ATEMPORAL_METADATA_URL": boot["metadata_url"],
        }

    def say(self, line: str) -> None:
        """Write a line to the console, with the seconds since the boot."""
        self._console.write(f"[{time.monotonic() - self._since:12.6f}] {line}\n")

    def on_host(self, argv: list[str]) -> list[str]:
        """Map absolute paths that exist under the root; the first word is looked up in PATH."""
        words = [_HOSTS_OWN.sub(f"{self.root}/usr/bin/", word) for word in argv]
        words = [
            f"{self.root}{word}" if word.startswith("/") and self._has(word) else word
            for word in words
        ]
        found = shutil.which(words[0], path=self.environment["PATH"])
        return [found or words[0], *words[1:]]

    def output(self, kind: str, name: str) -> int:
        """Open where a unit's output goes, as a file descriptor."""
        if kind == "console":
            return os.open(self.root / "dev/console", os.O_WRONLY)
        path = os.devnull if kind == "null" else self._journal / name
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, file: cloudinit.File) -> None:
        """Write a file of the cloud-config under the root.

        Raises:
            Unbootable: it would lie outside, or is a program that calls the host's own by its path.
        """
        path = Path(os.path.normpath(f"{self.root}/{file.path}"))
        if not path.is_relative_to(self.root) or not path.parent.resolve().is_relative_to(
            self.root
        ):
            raise Unbootable(f"write_files: {file.path} leads out of the machine's root")
        hazard = _HOSTS_OWN.search(file.content.decode(errors="replace"))
        if hazard and file.mode & 0o111:
            raise Unbootable(
                f"{file.path} calls a program of the host by its path; leave it to PATH"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        path.chmod(file.mode)
        if file.owner not in ("", "root", "root:root"):
            self.say(f"coreos-cloudinit: {file.path}: the owner {file.owner} is not modelled")

    def run(self) -> str:
        """Boot, run until powered off, and end every process; return who powered it off."""
        signalled = threading.Event()
        self.say(f"Linux version twin ({self._boot['instance_id']}), {self._boot['engine_says']}")
        init = Init(self, self._configure())
        requests = str(self.root / "run/init")
        threading.Thread(target=serve_requests, args=(init, requests), daemon=True).start()

        def button(_signal: int, _frame: FrameType | None) -> None:
            signalled.set()

        def wait_for_button() -> None:
            signalled.wait()
            init.power_off(by="the power button")

        # The handler only sets an event: it interrupts whatever holds the locks that it would need.
        signal.signal(signal.SIGTERM, button)
        threading.Thread(target=wait_for_button, daemon=True).start()
        init.boot()
        init.wait_for_power_off()
        self._end_processes()
        self._console.close()
        return "button" if signalled.is_set() else "poweroff"

    def _configure(self) -> tuple[cloudinit.UnitEntry, ...]:
        user_data = (self.root.parent / "user-data").read_bytes()
        if not user_data:
            self.say("coreos-cloudinit: there is no user-data")
            return ()
        try:
            config = cloudinit.parse(user_data, self._boot["addresses"])
            for key in config.ignored:
                self.say(f"coreos-cloudinit: {key} is not applied")
            for file in config.files:
                self.write(file)
        except (cloudinit.NotCloudConfig, Unbootable) as error:
            self.say(f"coreos-cloudinit: the user-data is not applied: {error}")
            return ()
        for entry in config.units:
            if entry.content:
                unit = f"/etc/systemd/system/{entry.name}"
                self.write(cloudinit.File(unit, entry.content.encode(), 0o644, ""))
        return config.units

    def _build_root(self) -> None:
        for folder in ("dev", "etc", "run", "tmp", "usr/bin", "var/lib", "var/log"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        self._journal.mkdir(exist_ok=True)
        for link in ("bin", "sbin", "usr/sbin"):
            (self.root / link).symlink_to(
                os.path.relpath(self.root / "usr/bin", (self.root / link).parent)
            )
        os.mkfifo(self.root / "dev/console")
        os.mkfifo(self.root / "run/init")
        scripts = dict.fromkeys(_STAND_INS, _REFUSE)
        scripts |= {"systemctl": _SYSTEMCTL, "poweroff": _POWEROFF, "shutdown": _POWEROFF}
        scripts["docker"] = engine.shim(self._boot["engine"], self._boot["instance_id"], self.root)
        if real := shutil.which("curl"):
            scripts["curl"] = curl.shim(self.root.parent, real)
        for name, script in scripts.items():
            program = self.root / "usr/bin" / name
            program.write_text(script)
            program.chmod(0o755)

    def _has(self, path: str) -> bool:
        return os.path.lexists(f"{self.root}{path}")

    def _end_processes(self) -> None:
        """What no unit's end has ended: containers, mostly; TERM, and KILL a little later."""
        me = (os.getpid(), processes.start_time(os.getpid()) or "")
        processes.send(processes.family(*me), signal.SIGTERM)
        deadline = time.monotonic() + STOP_CONTAINERS_WITHIN_S
        while processes.family(*me) and time.monotonic() < deadline:
            time.sleep(0.01)
        processes.kill_family(*me)


class Console:
    """A serial console: a FIFO in the root that keeps its writers apart from the file behind it."""

    def __init__(self, fifo: Path, log: Path) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        self._writer = os.open(fifo, os.O_WRONLY)
        os.set_blocking(reader, True)
        self._pump = threading.Thread(target=self._copy, args=(reader,), daemon=True)
        self._pump.start()

    def write(self, text: str) -> None:
        """Write text; whole lines of up to 4 KiB stay whole."""
        os.write(self._writer, text.encode())

    def close(self) -> None:
        """Keep what has been written so far, to the last byte."""
        os.close(self._writer)
        self._pump.join(timeout=5)

    def _copy(self, reader: int) -> None:
        while chunk := os.read(reader, 65536):
            os.write(self._log, chunk)


def main(directory: Path) -> None:
    """Be the machine in this directory."""
    processes.adopt_orphans()
    pid = os.getpid()
    identity = {"pid": pid, "started": processes.start_time(pid)}
    replace_file(directory / "machine.json", identity)
    by = Machine(directory).run()
    mishaps.hang(directory)
    replace_file(directory / "ended.json", {"by": by})
    # Threads may still sit in a read or a wait; there is nothing left for them to do.
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
