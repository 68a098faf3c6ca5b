"""A machine: a container whose PID 1 is systemd, which applies user-data at its first boot.

Promise: by `apply` as coreos-cloudinit does it: files, units written, masked and enabled, then the
manager reloaded, then the units' commands one after the other, each awaited. By `first_boot` the real
Ignition or the machine's own cloud-init does it. The job's container is a sibling on the same docker.
The metadata service is the test's, also at a second boot.
"""

from __future__ import annotations

import base64
import gzip
import io
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import yaml

from tests.e2e.systemd import first_boot
from tests.e2e.systemd.engine import Engine

UNITS = "etc/systemd/system"
# What Flatcar has and Debian does not: docker is there already, updates would reboot the machine.
STANDING_BY = "[Unit]\nDescription=%s\n[Service]\nType=%s\nExecStart=%s\nRemainAfterExit=yes\n"
OF_FLATCAR = {
    "docker.service": STANDING_BY % ("docker", "oneshot", "/bin/true"),
    "update-engine.service": STANDING_BY % ("updates", "exec", "/bin/sleep infinity"),
    "locksmithd.service": STANDING_BY % ("reboots", "exec", "/bin/sleep infinity"),
}
OF_DEBIAN = ("apt-daily.timer", "apt-daily-upgrade.timer")


@dataclass(frozen=True)
class Machine:
    """One machine, by its container's name."""

    engine: Engine
    name: str

    def boot(self) -> None:
        """Power on; returns when the boot is over.

        Raises:
            RuntimeError: it is not over within a minute; with the end of the console.
        """
        self.engine.run("start", self.name)
        self._until(lambda: self._system() in ("running", "degraded"), "has booted", 60)

    def first_boot(self, user_data: bytes, *, by: str) -> None:
        """Power on with this user-data, which the program named `by` applies, and let it be."""
        if by == "ignition":
            self._put(first_boot.for_ignition(user_data))
        else:
            self._write(first_boot.for_cloud_init(user_data))
        self.boot_again()

    def boot_again(self) -> None:
        """Power on a machine that was off, and let it be."""
        self.engine.run("start", self.name)

    def shut_down(self) -> None:
        """Begin an orderly shutdown, as the power button does."""
        self._systemctl("poweroff", "--no-block")

    def apply(self, user_data: bytes, *, hangs: bool = False) -> None:
        """Do what the cloud-config says; returns when the last command has ended.

        With `hangs` the first command is sent and nothing is done any more, as coreos-cloudinit does
        that waits for a result it has lost.

        Raises:
            RuntimeError: it is no cloud-config, or a step before the units' commands failed.
        """
        head, _, text = user_data.decode().partition("\n")
        if head != "#cloud-config":
            raise RuntimeError(f"{head!r} is not the first line of a cloud-config")
        config: dict[str, Any] = yaml.safe_load(text)
        units: list[dict[str, Any]] = config["coreos"]["units"]
        files = {
            f["path"].lstrip("/"): (_content(f), int(f["permissions"], 8))
            for f in config["write_files"]
        }
        files |= {
            f"{UNITS}/{u['name']}": (u["content"].encode(), 0o644) for u in units if "content" in u
        }
        self._write(files)
        for verb in ("mask", "enable"):
            if names := [unit["name"] for unit in units if unit.get(verb)]:
                self._systemctl(verb, *names)
        self._systemctl("daemon-reload")
        for unit in units:
            if "command" in unit:
                # A unit that fails to start is the machine's own affair, and can be its end.
                blocks = ("--no-block",) if hangs else ()
                self.engine.run(
                    *("exec", self.name, "systemctl", *blocks, unit["command"], unit["name"]),
                    check=False,
                )
                if hangs:
                    return

    def state(self, unit: str) -> str:
        """What systemd says of a unit: `active (enabled)`, `inactive (masked)` and the like."""
        show = ("systemctl", "show", "--value", "-p", "ActiveState", "-p", "UnitFileState", unit)
        active, file = self.engine.text("exec", self.name, *show).split()
        return f"{active} ({file})"

    @property
    def console(self) -> list[str]:
        """The lines of the console so far."""
        return self.engine.run("logs", self.name).stdout.decode(errors="replace").splitlines()

    def wait_off(self, within_s: float = 60) -> None:
        """Return when the machine is powered off.

        Raises:
            RuntimeError: it still runs; with the end of its console.
        """
        question = ("inspect", "--format", "{{.State.Running}}", self.name)
        self._until(lambda: self.engine.text(*question) == "false", "is off", within_s)

    def wait_says(self, words: str) -> None:
        """Return when the words are on the console: docker may have the last lines after the end.

        Raises:
            RuntimeError: they do not come; with the end of its console.
        """
        self._until(lambda: words in "\n".join(self.console), f"says {words!r}", 10)

    def _system(self) -> str:
        asked = self.engine.run("exec", self.name, "systemctl", "is-system-running", check=False)
        return asked.stdout.decode().strip()

    def _systemctl(self, *arguments: str) -> None:
        self.engine.run("exec", self.name, "systemctl", *arguments)

    def _write(self, files: dict[str, tuple[bytes, int]]) -> None:
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            for path, (data, mode) in files.items():
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode = len(data), mode
                archive.addfile(entry, io.BytesIO(data))
        self._put(content.getvalue())

    def _put(self, archive: bytes) -> None:
        self.engine.run("cp", "-", f"{self.name}:/", stdin=archive)

    def _until(self, holds: Callable[[], bool], what: str, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        while not holds():
            if time.monotonic() > deadline:
                end = "\n".join(self.console[-40:])
                raise RuntimeError(
                    f"not after {within_s} s: the machine {what}; its console:\n{end}"
                )
            time.sleep(0.1)


@contextmanager
def open_machine(
    engine: Engine, image: str, metadata_url: str, *, boots: bool = True
) -> Iterator[Machine]:
    """A machine that has booted for the first time, or is to; its container is removed afterwards."""
    machine = Machine(engine, f"machine-{uuid.uuid4().hex[:12]}")
    cgroups = "/sys/fs/cgroup"
    engine.run(
        *("create", "--tty", f"--name={machine.name}", f"--hostname={machine.name}"),
        *("--network=host", "--cap-add=SYS_ADMIN", "--cap-add=NET_ADMIN"),
        *("--security-opt=seccomp=unconfined", "--cgroupns=host", "--tmpfs=/run"),
        f"--volume={cgroups}:{cgroups}",
        f"--volume={engine.socket}:/var/lib/docker.sock",
        f"--volume={engine.program}:/usr/bin/docker:ro",
        *(image, "/sbin/init"),
    )
    try:
        environment = (
            f"ATEMPORAL_METADATA_URL={metadata_url} DOCKER_HOST=unix:///var/lib/docker.sock"
        )
        files = {f"usr/lib/systemd/system/{name}": text for name, text in OF_FLATCAR.items()}
        files["etc/systemd/system.conf.d/test.conf"] = (
            f"[Manager]\nDefaultEnvironment={environment}\n"
        )
        files |= {
            f"usr/lib/systemd/system/{name}": "[Timer]\nOnBootSec=1y\n" for name in OF_DEBIAN
        }
        machine._write({path: (text.encode(), 0o644) for path, text in files.items()})
        if boots:
            machine.boot()
            machine._systemctl("start", *OF_FLATCAR)
        yield machine
    finally:
        engine.run("rm", "--force", "--volumes", machine.name)


def _content(file: dict[str, Any]) -> bytes:
    content: bytes = file["content"].encode()
    match file.get("encoding"):
        case "base64" | "b64":
            return base64.b64decode(content)
        case "gz+b64":
            return gzip.decompress(base64.b64decode(content))
        case None:
            return content
        case encoding:
            raise RuntimeError(f"{file['path']} has the encoding {encoding!r}")
