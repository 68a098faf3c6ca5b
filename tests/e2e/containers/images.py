"""The images that the tests build: the product's, from a base of this machine's own, and stand-ins.

Promise: nothing is pulled. What the build takes from the package index has the hashes of the lock files,
or the build fails.
"""

from __future__ import annotations

import os
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.debian import system
from tests.e2e.systemd.engine import Engine

ROOT = Path(__file__).parents[3]
STANDINS = Path(__file__).parent / "standins"
BASE, SERVERS = "atemporal-test/base", "atemporal-test/servers"
PYTHON = ("python3", "python3-venv", "python-is-python3", "ca-certificates")
PACKAGES = ("postgresql", "rabbitmq-server", "prometheus", "busybox")
NAMES = ("postgres", "rabbitmq", "prometheus", "grafana")


@dataclass(frozen=True)
class Images:
    """The names of the images: the base, the product's, the twin's, each stand-in's."""

    base: str
    product: str
    twin: str
    standins: dict[str, str]


def base(engine: Engine, folder: Path) -> str:
    """A system with Python, and with the certificates that this machine trusts; return its name."""
    plain = f"{BASE}-plain"
    engine.run("import", system("python", PYTHON), plain)
    trusted = os.environ.get("PIP_CERT") or ssl.get_default_verify_paths().cafile
    if trusted is None:
        return plain
    (folder / "trusted.crt").write_bytes(Path(trusted).read_bytes())
    (folder / "Dockerfile").write_text(
        f"FROM {plain}\nCOPY trusted.crt /etc/ssl/certs/ca-certificates.crt\n"
        "ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt\n"
    )
    build(engine, folder, BASE)
    return BASE


def build(engine: Engine, folder: Path, name: str, *options: str) -> None:
    """Build the folder's image.

    Raises:
        RuntimeError: with the end of what docker printed.
    """
    host = f"--host=unix://{engine.socket}"
    done = subprocess.run(
        [
            str(engine.program),
            host,
            "build",
            "--network=host",
            f"--tag={name}",
            *options,
            str(folder),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=600,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name} is not built:\n{done.stdout[-3000:]}")


def build_all(engine: Engine, folder: Path) -> Images:
    """Build the product's image and its twin's from this repository, and the stand-ins."""
    images = Images(
        base(engine, folder),
        "atemporal-test/atemporal",
        "atemporal-test/twin",
        {name: f"atemporal-test/{name}" for name in NAMES},
    )
    arguments = ("VERSION=1.2.3", "REVISION=abc", f"BASE={images.base}")
    build(engine, ROOT, images.product, *(f"--build-arg={one}" for one in arguments))
    twin = ROOT / "deploy" / "compose" / "twin"
    build(engine, twin, images.twin, f"--build-arg=BASE={images.product}")
    engine.run("import", system("servers", PACKAGES), SERVERS)
    for name, image in images.standins.items():
        build(engine, STANDINS, image, f"--target={name}")
    return images
