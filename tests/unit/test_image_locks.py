"""What the image installs is locked, by hash, and agrees with what the tests run with."""

from __future__ import annotations

import re
import subprocess
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUNTIME, BUILD = (ROOT / "deploy" / "image" / f"{name}.lock" for name in ("requirements", "build"))
PIN = re.compile(
    r"(?P<name>[a-z0-9-]+)==(?P<version>[\w.]+)(?P<marker> ; [^\\]+)?"
    r"(?P<hashes>( \\\n    --hash=sha256:[0-9a-f]{64})+)\n"
)
both = pytest.mark.parametrize("lock", [RUNTIME, BUILD], ids=lambda path: path.stem)


def _pins(lock: Path) -> dict[str, str]:
    return {pin["name"]: pin["version"] for pin in PIN.finditer(lock.read_text())}


def _constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().split()
    return dict(line.split("==") for line in lines)


@both
def test_a_lock_holds_names_versions_and_hashes_and_nothing_else(lock: Path) -> None:
    assert PIN.sub("", lock.read_text()) == ""


@both
def test_a_lock_agrees_with_the_constraints(lock: Path) -> None:
    known = _constraints()
    other = {name: version for name, version in _pins(lock).items() if known.get(name) != version}
    assert not other, "run make lock"


def test_all_that_the_product_needs_is_locked() -> None:
    environment = {name: str(value) for name, value in default_environment().items()}
    needed, waiting = set[str](), [Requirement(one) for one in PROJECT["project"]["dependencies"]]
    pins = _pins(RUNTIME)
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        if name in needed or (
            one.marker and not one.marker.evaluate({**environment, "extra": ""})
        ):
            continue
        needed.add(name)
        assert one.specifier.contains(pins.get(name, "0")), f"{one} is not locked: run make lock"
        waiting += [Requirement(text) for text in requires(name) or ()]
    assert needed, "the product needs nothing?"


def test_what_builds_the_wheel_is_locked() -> None:
    pins = _pins(BUILD)
    for text in PROJECT["build-system"]["requires"]:
        one = Requirement(text)
        assert one.specifier.contains(pins[canonicalize_name(one.name)])


def test_make_image_refuses_where_no_docker_answers() -> None:
    done = subprocess.run(
        ["make", "image", "DOCKER=/nonexistent/docker"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "make image needs a docker that answers" in done.stderr
