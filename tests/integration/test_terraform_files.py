"""The Terraform files look as `terraform fmt` leaves them, and systemd understands a server's units.

The formatter is HCL's own, from Debian's package: what `terraform fmt` calls, without Terraform.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.provision import GO_PATH, ROOT

FOLDER = ROOT / "deploy" / "terraform"
FILES = sorted([*FOLDER.glob("*.tf"), *FOLDER.glob("*.tfvars")])


@pytest.fixture(scope="module")
def formatter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`hclfmt`, built."""
    built = tmp_path_factory.mktemp("go") / "hclfmt"
    env = {**os.environ, "GO111MODULE": "off", "GOPATH": GO_PATH, "CGO_ENABLED": "0"}
    go = shutil.which("go")
    assert go, "go is not there: run python -m tests.provision"
    command = [go, "build", "-o", str(built), "github.com/hashicorp/hcl/v2/cmd/hclfmt"]
    subprocess.run(command, env=env, check=True)
    return built


def formatted(formatter: Path, path: Path) -> str:
    done = subprocess.run([formatter, path], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_formatted(path: Path, formatter: Path) -> None:
    assert formatted(formatter, path) == path.read_text()


def test_the_formatter_sees_what_is_not(tmp_path: Path, formatter: Path) -> None:
    crooked = tmp_path / "crooked.tf"
    crooked.write_text("locals {\n  a = 1\n    bcd = 2\n}\n")
    assert formatted(formatter, crooked) == "locals {\n  a   = 1\n  bcd = 2\n}\n"


def test_systemd_understands_the_units(tmp_path: Path) -> None:
    root = tmp_path / "units"
    shutil.copytree(FOLDER / "server", root)
    for unit in root.iterdir():
        # Of what a unit calls systemd wants to see that it is there.
        text = unit.read_text()
        unit.write_text(
            text.replace("/opt/atemporal/server", "/bin/true").replace(
                "/usr/bin/docker", "/bin/true"
            )
        )
    units = [str(one) for one in sorted(root.iterdir()) if one.suffix in (".service", ".timer")]
    done = subprocess.run(
        ["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False
    )
    ours = [line for line in done.stderr.splitlines() if "docker.service" not in line]
    assert [line for line in ours if "atemporal" in line] == []
