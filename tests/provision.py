"""What the tests need from the machine beside Python packages: found, or installed, or named.

Promise: `python -m tests.provision` returns with success only when every tier of the tests can run: a
need is met by what an environment variable names, else by what is installed, else by Debian's
packages (as root), else, for the broker, by docker. What comes by npm is put beside its lock file.
Otherwise it says what is missing and what to do, and fails; nothing is skipped. It is quick when nothing
is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.servers import postgres, rabbitmq

ROOT = Path(__file__).parents[1]
GO_PATH = "/usr/share/gocode"
"""Where Debian keeps what Go programs import."""
_LOCK = "package-lock.json"
_POLICY = Path("/usr/sbin/policy-rc.d")
_SAVED_POLICY = _POLICY.with_suffix(".d.before-atemporal")
_NO_SERVICES = "#!/bin/sh\n# Here only while the tests of atemporal install packages.\nexit 101\n"


@dataclass(frozen=True)
class Need:
    """One thing of the machine: how it is known to be there, and Debian's package for it.

    One that the package does not bring, but a program of it, has `fetch`; then `otherwise` is how a
    person does the same.
    """

    name: str
    package: str
    found: Callable[[], bool]
    otherwise: str = ""
    fetch: Callable[[], object] | None = None


def _program(name: str, package: str | None = None) -> Need:
    """A program on the path, in the folders for administrators too."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
    return Need(name, package or name, lambda: shutil.which(name, path=path) is not None)


def _file(path: str, package: str) -> Need:
    return Need(path, package, Path(path).exists)


def _npm(name: str, folder: Path) -> Need:
    """What the folder's lock file pins, beside it in `node_modules`."""
    return Need(
        name,
        "npm",
        lambda: _read(folder / _LOCK) == _read(folder / "node_modules" / _LOCK),
        f"run npm ci in {folder} (it needs the network)",
        partial(_npm_ci, folder),
    )


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _npm_ci(folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        return
    print(f"Installing for the tests: what {folder / _LOCK} names", flush=True)
    argv = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(
        argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False
    )
    if not done.returncode:
        # Written last: a run that was killed begins again.
        shutil.copyfile(folder / _LOCK, folder / "node_modules" / _LOCK)


def _compose() -> bool:
    """The plugin of docker's client, or the program of before."""
    docker = shutil.which("docker")
    asked = [docker, "compose", "version"] if docker else ["false"]
    return (
        shutil.which("docker-compose") is not None
        or not subprocess.run(asked, capture_output=True, check=False).returncode
    )


def _postgres() -> bool:
    return bool(os.environ.get(postgres.VARIABLE)) or postgres.find() is not None


def _rabbitmq() -> bool:
    return bool(os.environ.get(rabbitmq.VARIABLE)) or rabbitmq.find() is not None


NEEDS = (
    Need("postgres", "postgresql", _postgres, f"or set {postgres.VARIABLE}"),
    Need("rabbitmq", "rabbitmq-server", _rabbitmq, f"or set {rabbitmq.VARIABLE}, or start docker"),
    _program("git"),
    _program("curl"),
    _program("shellcheck"),
    _program("systemd-analyze", "systemd"),
    _program("iptables"),
    _program("dockerd", "docker.io"),
    Need("docker-compose", "docker-compose", _compose),
    _program("docker-registry"),
    _program("mmdebstrap"),
    _program("busybox", "busybox-static"),
    # What the first boots of other OS families say of their user-data.
    _program("ignition-validate", "ignition"),
    _program("cloud-init"),
    _program("promtool", "prometheus"),
    _program("prometheus"),
    # Their completion is tried in themselves.
    _program("zsh"),
    _program("fish"),
    # The page is looked at in a real browser.
    _program("chromium"),
    _program("chromedriver", "chromium-driver"),
    # Other people's AMQP clients, and what AsyncAPI says of itself.
    _program("amqp-publish", "amqp-tools"),
    _program("go", "golang-go"),
    _file(
        f"{GO_PATH}/src/github.com/rabbitmq/amqp091-go", "golang-github-rabbitmq-amqp091-go-dev"
    ),
    _program("npm"),
    _npm("amqplib", ROOT / "docs" / "examples" / "node"),
    _npm("asyncapi-specs", ROOT / "tests" / "npm"),
    # IAM's decisions, and how Terraform wants its files to look.
    _npm("iam-simulate", ROOT / "tests" / "iam"),
    _file(
        f"{GO_PATH}/src/github.com/hashicorp/hcl/v2/hclwrite", "golang-github-hashicorp-hcl-v2-dev"
    ),
)


def provision(needs: Sequence[Need]) -> list[Need]:
    """Meet the needs as far as this machine allows; return those that are not met."""
    missing = [need for need in needs if not need.found()]
    packages = sorted({need.package for need in missing if need.fetch is None})
    if packages and os.getuid() == 0 and shutil.which("apt-get"):
        _install(packages)
    for need in missing:
        if need.fetch is not None:
            need.fetch()
    missing = [need for need in missing if not need.found()]
    if any(need.name == "rabbitmq" for need in missing) and rabbitmq.docker_works():
        missing = [need for need in missing if need.name != "rabbitmq"]
    return missing


def _install(packages: Sequence[str]) -> None:
    print(f"Installing for the tests: {' '.join(packages)}", flush=True)
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    # Another apt may be at work, as on a machine that has just booted: wait for it.
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"]
    install = [*apt, "install", "--yes", "--no-install-recommends", *packages]
    with _no_services_started():
        for argv in ([*apt, "update"], install):
            # What apt could not do shows in what is still missing, with what to do about it.
            subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)


@contextmanager
def _no_services_started() -> Iterator[None]:
    """Keep Debian's packages from starting their servers: the tests run their own."""
    # Ours is still there when an earlier run was killed; the machine's own is then the saved one.
    if _POLICY.exists() and _POLICY.read_text() != _NO_SERVICES:
        _POLICY.rename(_SAVED_POLICY)
    _POLICY.write_text(_NO_SERVICES)
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()
        if _SAVED_POLICY.exists():
            _SAVED_POLICY.rename(_POLICY)


def main(names: Sequence[str]) -> int:
    """Meet the needs of these names, or all; return the exit status."""
    known = {need.name: need for need in NEEDS}
    unknown = sorted(set(names) - set(known))
    if unknown:
        print(f"unknown: {' '.join(unknown)}; known are {' '.join(known)}", file=sys.stderr)
        return 2
    missing = provision([known[name] for name in names] if names else NEEDS)
    if not missing:
        return 0
    print("\nThe tests need more than this machine has:", file=sys.stderr)
    for need in missing:
        ways = [need.otherwise] if need.fetch else ["install it", need.otherwise]
        print(f"  {need.name}: {', '.join(filter(None, ways))}", file=sys.stderr)
    # What is fetched by a program waits for that program, which is a need of its own.
    packages = " ".join(sorted({need.package for need in missing if need.fetch is None}))
    if packages:
        print(f"On Debian and Ubuntu, as root: apt-get install {packages}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
