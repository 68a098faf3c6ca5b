"""A machine: its root directory, its boot, and how commands get into its root.

Promise: it executes DIR/user-data under the root DIR/root and nowhere else. Files of it are written
there. Commands of units get that directory before every path that exists
in it, and its `usr/bin` first in PATH (see `programs`). Messages of the machine are in DIR/console,
the output of its units in DIR/journal/. SIGTERM is the power button. What reads the
user-data is what its image has: `host.lifecycle` says which.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

from atemporal.twin import processes
from atemporal.twin.faults import fault
from atemporal.twin.machine import canonical, cloudinit, ignition, programs
from atemporal.twin.machine.console import Console
from atemporal.twin.machine.first_boot import File, FirstBoot, NotApplied
from atemporal.twin.machine.init import Init

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STOP_CONTAINERS_WITHIN_S = 2.0


class Unbootable(Exception):
    """The user-data would harm the host or can not be applied; the text says why."""


class Machine:
    """The machine in a directory."""

    def __init__(self, directory: Path) -> None:
        boot: dict[str, Any] = json.loads((directory / "boot.json").read_bytes())
        self.root = directory / "root"
        self._journal = directory / "journal"
        self._boot = boot
        self._booted_at = time.monotonic()
        self._build_root()
        self._console = Console(self.root / "dev/console", directory / "console")
        self.environment = {
            "PATH": f"{self.root}/usr/bin:{os.environ.get('PATH', SYSTEM_PATH)}",
            "LANG": "C.UTF-8",
            "ATEMPORAL_ROOT": str(self.root),
            "ATEMPORAL_METADATA_URL": boot["metadata_url"],
        }

    def log(self, line: str) -> None:
        """Write a line to the console, with the seconds since the boot."""
        self._console.write(f"[{time.monotonic() - self._booted_at:12.6f}] {line}\n")

    def on_host(self, argv: list[str]) -> list[str]:
        """Map absolute paths that exist under the root; argv[0] is looked up in PATH."""
        words = [programs.redirect(word, self.root) for word in argv]
        words = [
            f"{self.root}{word}" if word.startswith("/") and self._has(word) else word
            for word in words
        ]
        found = shutil.which(words[0], path=self.environment["PATH"])
        return [found or words[0], *words[1:]]

    def journal(self, name: str) -> int:
        """Open where a unit's output goes, as a file descriptor."""
        return os.open(self._journal / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, file: File) -> None:
        """Write a file of the user-data under the root.

        Raises:
            Unbootable: it would lie outside, or is a program that calls the host's own by its path.
        """
        path = Path(os.path.normpath(f"{self.root}/{file.path}"))
        if not path.is_relative_to(self.root) or not path.parent.resolve().is_relative_to(
            self.root
        ):
            raise Unbootable(f"{file.path} leads out of the machine's root")
        if file.mode & 0o111 and programs.calls_host(file.content.decode(errors="replace")):
            raise Unbootable(
                f"{file.path} calls a program of the host by its path; leave it to PATH"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        path.chmod(file.mode)

    def run(self) -> str:
        """Boot, run until powered off, and end every process; return who powered it off."""
        pressed = threading.Event()
        self.log(
            f"Linux version twin ({self._boot['instance_id']}), {self._boot['engine_summary']}"
        )
        program, first_boot = self._configure()
        init = Init(
            self,
            first_boot.units,
            program=program,
            after_command=lambda: self._hang_like_cloudinit(program),
        )

        def on_signal(_signal: int, _frame: FrameType | None) -> None:
            pressed.set()

        def wait_for_button() -> None:
            pressed.wait()
            init.power_off(by="the power button")

        # The handler only sets an event: it interrupts whatever holds the locks that it would need.
        signal.signal(signal.SIGTERM, on_signal)
        threading.Thread(target=wait_for_button, daemon=True).start()
        if first_boot.off:
            self.log(f"{program}: bootcmd: {first_boot.off}")
            init.power_off(by=f"{program}'s bootcmd")
        else:
            init.boot()
        init.wait_for_power_off()
        self._end_processes()
        self._console.close()
        return "button" if pressed.is_set() else "poweroff"

    def _configure(self) -> tuple[str, FirstBoot]:
        """Apply the user-data; return by which program, and what is left to be done."""
        user_data = (self.root.parent / "user-data").read_bytes()
        program = _program(self._boot["programs"], user_data)
        if not user_data:
            self.log(f"{program}: there is no user-data")
            return program, FirstBoot()
        try:
            first_boot = self._parsed(program, user_data)
            for key in first_boot.ignored:
                self.log(f"{program}: {key} is not applied")
            for file in first_boot.files:
                self.write(file)
        except (NotApplied, Unbootable) as error:
            self.log(f"{program}: the user-data is not applied: {error}")
            return program, FirstBoot()
        for entry in first_boot.units:
            if entry.content:
                unit = f"/etc/systemd/system/{entry.name}"
                self.write(File(unit, entry.content.encode(), 0o644))
        return program, first_boot

    def _parsed(self, program: str, user_data: bytes) -> FirstBoot:
        if program == ignition.NAME:
            return ignition.parse(user_data)
        if program == canonical.NAME:
            return canonical.parse(user_data)
        return cloudinit.parse(user_data, self._boot["addresses"])

    def _hang_like_cloudinit(self, program: str) -> None:
        """coreos-cloudinit has not heard that its command is done, and waits for that for ever."""
        if program == cloudinit.NAME and fault.injected(self.root.parent, "cloudinit-hangs"):
            self.log("coreos-cloudinit: waits for the result of its command")
            threading.Event().wait()

    def _build_root(self) -> None:
        for folder in ("dev", "etc", "run", "tmp", "usr/bin", "var/lib", "var/log"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        self._journal.mkdir(exist_ok=True)
        for link in ("bin", "sbin", "usr/sbin"):
            (self.root / link).symlink_to(
                os.path.relpath(self.root / "usr/bin", (self.root / link).parent)
            )
        os.mkfifo(self.root / "dev/console")
        programs.install(self.root, self._boot)

    def _has(self, path: str) -> bool:
        return os.path.lexists(f"{self.root}{path}")

    def _end_processes(self) -> None:
        """End what no unit's end has ended, mostly containers: TERM, and KILL a little later."""
        me = (os.getpid(), processes.start_time(os.getpid()) or "")
        processes.send(processes.family(*me), signal.SIGTERM)
        deadline = time.monotonic() + STOP_CONTAINERS_WITHIN_S
        while processes.family(*me) and time.monotonic() < deadline:
            time.sleep(0.01)
        processes.kill_family(*me)


def _program(programs: list[str], user_data: bytes) -> str:
    """Which of an image's programs takes the user-data up: Ignition leaves other text to the next."""
    takes = user_data.lstrip()[:1] == b"{"
    return next((one for one in programs if takes or one != ignition.NAME), programs[0])
