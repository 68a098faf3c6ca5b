"""What the image installs is locked, by hash, and agrees with what the tests run with."""

from __future__ import annotations

import re
import subprocess
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml
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


def _needed() -> dict[str, list[Requirement]]:
    """What the product needs on this machine, by name, with what is asked of each."""
    environment = {name: str(value) for name, value in default_environment().items()}
    needed: dict[str, list[Requirement]] = {}
    waiting = [(Requirement(one), "") for one in PROJECT["project"]["dependencies"]]
    while waiting:
        one, extra = waiting.pop()
        name = canonicalize_name(one.name)
        if one.marker and not one.marker.evaluate({**environment, "extra": extra}):
            continue
        known = needed.setdefault(name, [])
        if str(one) in map(str, known):
            continue
        known.append(one)
        for text in requires(name) or ():
            waiting += [(Requirement(text), wanted) for wanted in ("", *one.extras)]
    return needed


def test_all_that_the_product_needs_is_locked_and_nothing_beside() -> None:
    pins = _pins(RUNTIME)
    needed = _needed()
    for name, asked in needed.items():
        for one in asked:
            assert one.specifier.contains(pins.get(name, "0")), (
                f"{one} is not locked: run make lock"
            )
    assert set(pins) - set(needed) == set(), "nothing needs it: run make lock"


def test_the_upkeep_of_each_dependency_is_written_down() -> None:
    page = (ROOT / "docs" / "security.md").read_text().partition("## What it is made of")[2]
    written = dict(re.findall(r"^\| ([a-z0-9-]+) \| [^|]+ \| ([0-9][\w.]*) \|", page, re.M))
    direct = [
        canonicalize_name(Requirement(one).name) for one in PROJECT["project"]["dependencies"]
    ]
    pins = _pins(RUNTIME)
    assert written == {name: pins[name] for name in direct}


def test_the_workflow_may_write_nothing() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert all("permissions" not in job for job in workflow["jobs"].values())
    # A pull request of anybody runs it: it gets no secret, and leaves no credentials behind.
    assert "pull_request_target" not in workflow[True]
    assert "secrets." not in (ROOT / ".github" / "workflows" / "ci.yml").read_text()


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
