"""The wheel is whole: installed away from the repository, with what it declares and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SCRIPTS = sorted(PROJECT["project"]["scripts"])
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


def _run(*argv: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a program as somebody without the repository and its virtual environment would."""
    env = {n: v for n, v in os.environ.items() if not n.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return subprocess.run(
        argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


def _pip(python: str | Path, *args: str | Path, cwd: Path) -> None:
    pip = (python, "-m", "pip", "--disable-pip-version-check", *args)
    done = _run(*pip, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    _pip(sys.executable, "wheel", ROOT, "--no-deps", "--wheel-dir", folder, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs that the wheel installs into an empty environment."""
    folder = tmp_path_factory.mktemp("elsewhere")
    made = _run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    assert made.returncode == 0, made.stdout + made.stderr
    binaries = folder / "venv" / "bin"
    constraints = ROOT / "constraints.txt"
    _pip(binaries / "python", "install", wheel, "--constraint", constraints, cwd=folder)
    return binaries


def test_the_wheel_holds_every_file_of_the_packages_and_no_other(wheel: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == {name for name in listed if (ROOT / name).exists()}


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_answers_help(scripts: Path, tmp_path: Path, script: str) -> None:
    done = _run(scripts / script, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()
    assert script in done.stdout


def test_the_installed_package_is_not_the_repository(scripts: Path, tmp_path: Path) -> None:
    where = "import atemporal; print(atemporal.__file__)"
    done = _run(scripts / "python", "-W", "error", "-c", where, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(scripts.parent)
