"""How a program begins: Ctrl-C while it is imported, and afterwards."""

from __future__ import annotations

import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from atemporal import start

ROOT = Path(__file__).parents[2]
CODE = "from atemporal.start import program; program('slow')"
# As a shell starts it, also where the tests themselves were begun in the background.
HEEDING = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "


def begun(folder: Path, module: str, before: str = HEEDING) -> subprocess.Popen[str]:
    """Begin a program that is this module; it has printed its first line."""
    (folder / "slow.py").write_text(module)
    process = subprocess.Popen(
        [sys.executable, "-c", f"{before}{CODE}"],
        env={"PYTHONPATH": f"{ROOT}:{folder}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def test_ctrl_c_while_it_is_imported_ends_it_without_a_word(tmp_path: Path) -> None:
    process = begun(tmp_path, "print('begun', flush=True)\nimport time\ntime.sleep(60)\n")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == -signal.SIGINT


def test_afterwards_ctrl_c_is_the_programs_own_affair(tmp_path: Path) -> None:
    module = """
import time
def main():
    try:
        print('begun', flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print('in order')
"""
    process = begun(tmp_path, module)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("in order\n", "")
    assert process.returncode == 0


def test_a_program_that_is_to_ignore_ctrl_c_goes_on_doing_so(tmp_path: Path) -> None:
    module = "print('begun', flush=True)\nmain = input\n"
    before = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    process = begun(tmp_path, module, before)
    process.send_signal(signal.SIGINT)
    assert process.communicate("\n", timeout=30) == ("", "")
    assert process.returncode == 0


@pytest.mark.parametrize("name", ["cli", "scheduler", "launcher", "reaper", "api"])
def test_every_program_begins_here(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    program = "atemporal" if name == "cli" else f"atemporal-{name}"
    assert scripts[program] == f"atemporal.start:{name}"
    called: list[str] = []
    monkeypatch.setattr(start, "program", called.append)
    getattr(start, name)()
    (module,) = called
    assert callable(getattr(__import__(module, fromlist=["main"]), "main", None))
