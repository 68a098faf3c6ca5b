"""The docker that the machines and their jobs run on, and a registry to pull from.

Promise: a docker that answers already (`DOCKER_HOST`, or the usual socket) is used; else one of our own
is started, as root, with everything it keeps in a folder that is gone afterwards, and without touching
the host's network. What is missing is named in the failure.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.child import Child
from tests.servers.ports import free_port

USUAL_SOCKET = Path("/var/run/docker.sock")


@dataclass(frozen=True)
class Engine:
    """A docker that answers on `socket`, by its client `program`."""

    program: Path
    socket: Path

    def run(
        self, *arguments: str | Path, stdin: bytes | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        """Ask docker; with `check`, a refusal fails the test with docker's words."""
        result = subprocess.run(
            [self.program, f"--host=unix://{self.socket}", *arguments],
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=False,
        )
        if check and result.returncode:
            words = " ".join(map(str, arguments))
            raise RuntimeError(f"docker {words}: {result.stderr.decode(errors='replace')}")
        return result

    def text(self, *arguments: str | Path) -> str:
        """What docker prints to this question."""
        return self.run(*arguments).stdout.decode().strip()

    @property
    def answers(self) -> bool:
        """Whether the daemon is there."""
        return self.run("version", check=False).returncode == 0


def find(program: str, package: str) -> Path:
    """The program's path, in the folders for administrators too.

    Raises:
        RuntimeError: it is not installed.
    """
    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
    found = shutil.which(program, path=path)
    if found is None:
        raise RuntimeError(f"{program} is not installed; on Debian: apt-get install {package}")
    return Path(found).resolve()


@contextmanager
def open_engine() -> Iterator[Engine]:
    """The docker that answers, or one of our own."""
    client = find("docker", "docker.io")
    host = os.environ.get("DOCKER_HOST", "")
    given = Engine(client, Path(host.removeprefix("unix://")) if host else USUAL_SOCKET)
    if given.socket.is_socket() and given.answers:
        yield given
    else:
        with open_own_engine() as engine:
            yield engine


@contextmanager
def open_own_engine(*, disk_mb: int | None = None) -> Iterator[Engine]:
    """A docker of our own, beside any other; with `disk_mb`, images and containers have no more room."""
    client = find("docker", "docker.io")
    if os.getuid() != 0:
        raise RuntimeError("only root can start a docker; start one, or run the tests as root")
    daemon = find("dockerd", "docker.io")
    # A folder with a short name: a socket's path has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="docker-") as folder:
        base = Path(folder)
        engine = Engine(client, base / "docker.sock")
        (base / "data").mkdir()
        if disk_mb:
            size = f"size={disk_mb}m"
            subprocess.run(["mount", "-t", "tmpfs", "-o", size, "disk", base / "data"], check=True)
        # Not the machine's own settings; and images lie below the data root, not in a containerd.
        settings = base / "daemon.json"
        settings.write_text('{"features": {"containerd-snapshotter": false}}')
        child = Child(
            [
                daemon,
                f"--config-file={settings}",
                f"--host=unix://{engine.socket}",
                f"--data-root={base / 'data'}",
                f"--exec-root={base / 'exec'}",
                f"--pidfile={base / 'pid'}",
                # A folder's name may end in an underscore, and no namespace's does.
                f"--containerd-namespace=tests-{base.name.encode().hex()}",
                f"--containerd-plugins-namespace=plugins-{base.name.encode().hex()}",
                *("--bridge=none", "--iptables=false", "--ip6tables=false"),
            ],
            log=base / "log",
        )
        try:
            child.wait_ready(lambda: engine.socket.is_socket() and engine.answers)
            yield engine
        finally:
            child.end(signal.SIGTERM, within_s=60)
            _unmount_below(base)


# Somebody's name and the bcrypt hash of a password that nobody here has to know.
USER, PASSWORD = "somebody", "sesame"
"""Who may use a locked registry."""
_HTPASSWD = "somebody:$2b$05$abcdefghijklmnopqrstuuKcS.CYWVYVaLiiCKrrc0A5s3mGesJ9O\n"


@contextmanager
def open_registry(*, locked: bool = False) -> Iterator[str]:
    """A registry on the loopback address; yields its `host:port`. A locked one wants a password."""
    program = find("docker-registry", "docker-registry")
    with tempfile.TemporaryDirectory(prefix="registry-") as folder:
        base, address = Path(folder), f"127.0.0.1:{free_port()}"
        config, users = base / "config.yml", base / "users"
        users.write_text(_HTPASSWD)
        config.write_text(
            "version: 0.1\n"
            f"http: {{addr: '{address}'}}\n"
            f"storage: {{filesystem: {{rootdirectory: '{base / 'data'}'}}}}\n"
            + (f"auth: {{htpasswd: {{realm: here, path: '{users}'}}}}\n" if locked else "")
        )
        child = Child([program, "serve", config], log=base / "log")
        try:
            child.wait_ready(lambda: _registry_answers(address))
            yield address
        finally:
            child.end(signal.SIGTERM)


def _unmount_below(folder: Path) -> None:
    """A daemon leaves a mount behind for the containers that were on the host's network."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in reversed(mounts):
        if Path(mount).is_relative_to(folder):
            subprocess.run(["umount", mount], check=True)


def _registry_answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/v2/", timeout=5) as response:
            return bool(response.status == 200)
    except urllib.error.HTTPError as error:
        return error.code == 401
    except (urllib.error.URLError, OSError):
        return False
