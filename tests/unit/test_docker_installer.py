"""What installs docker on an image that comes without it, with package managers that are scripts."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloud_config import DOCKER_INSTALLER

APT = """#!/bin/sh
echo "apt-get $*" >>{calls}
case $* in
  *install*) [ -e {works} ] && touch {bin}/docker && chmod +x {bin}/docker ;;
esac
"""
APT_CACHE = '#!/bin/sh\necho "apt-cache $*" >>{calls}\n[ -e {split} ]\n'
DNF = """#!/bin/sh
echo "dnf $*" >>{calls}
[ -e {works} ] && touch {bin}/docker && chmod +x {bin}/docker || {{ echo no mirror; exit 1; }}
"""
SYSTEMCTL = '#!/bin/sh\necho "systemctl $*" >>{calls}\n'
SLEEP = '#!/bin/sh\necho "sleep $*" >>{calls}\n'
TOOLS = ("bash", "sh", "cat", "tail", "tee", "timeout", "touch", "chmod", "dirname")


@dataclass
class Image:
    """A machine's programs, and what was called of them."""

    base: Path

    def write(self, name: str, script: str) -> None:
        """Have a program of this name."""
        names = {one: self.base / one for one in ("calls", "works", "split", "bin")}
        program = self.base / "bin" / name
        program.write_text(script.format(**names))
        program.chmod(0o755)

    def run(self) -> list[str]:
        """Run the installer; return the calls."""
        script = self.base / "installer"
        script.write_text(DOCKER_INSTALLER)
        done = subprocess.run(
            [self.base / "bin" / "bash", script],
            env={"PATH": str(self.base / "bin"), "ATEMPORAL_ROOT": str(self.base)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, "the agent is the one that reports"
        self.stderr = done.stderr
        calls = self.base / "calls"
        return calls.read_text().splitlines() if calls.exists() else []


@pytest.fixture
def image(tmp_path: Path) -> Image:
    for folder in ("bin", "run", "dev"):
        (tmp_path / folder).mkdir()
    image = Image(tmp_path)
    for tool in TOOLS:
        found = shutil.which(tool, path=os.defpath)
        assert found
        (tmp_path / "bin" / tool).symlink_to(found)
    image.write("systemctl", SYSTEMCTL)
    image.write("sleep", SLEEP)
    return image


def test_where_docker_is_nothing_is_done(image: Image) -> None:
    image.write("docker", "#!/bin/sh\n")
    image.write("dnf", DNF)
    assert image.run() == []


def test_amazon_linux_gets_its_package_started(image: Image) -> None:
    image.write("dnf", DNF)
    (image.base / "works").touch()
    assert image.run() == ["sleep 0", "dnf -qy install docker", "systemctl start docker"]


@pytest.mark.parametrize("split", [True, False], ids=["since Debian 13", "before"])
def test_debian_and_ubuntu_get_the_client_too(image: Image, split: bool) -> None:
    image.write("apt-get", APT)
    image.write("apt-cache", APT_CACHE)
    (image.base / "works").touch()
    if split:
        (image.base / "split").touch()
    update, cache, install, started = image.run()[1:]
    assert update.endswith(" update")
    assert cache == "apt-cache show docker-cli"
    assert install.endswith("ca-certificates curl docker.io" + " docker-cli" * split)
    assert started == "systemctl start docker"


def test_what_does_not_work_is_tried_again_and_then_told(image: Image) -> None:
    image.write("dnf", DNF)
    assert [call for call in image.run() if "sleep" in call] == [
        f"sleep {delay}" for delay in (0, 2, 4, 8, 16, 32)
    ]
    assert "docker can not be installed" in image.stderr
    assert "no mirror" in image.stderr
    assert "no mirror" in (image.base / "dev/console").read_text()
