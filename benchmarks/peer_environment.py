"""The virtual environment of the peers: made once, in the cache, with the versions in `peers.txt`.

It is none of the project's: neither the product nor its tests ever import a peer. On Python 3.11 oban
is installed against its word (it asks for 3.12), and the one statement of it that 3.11 can not read is
rewritten. That is no official run, and its result says so.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.checkout import ROOT

LISTED = Path(__file__).with_name("peers.txt")
FOLDER = ROOT / ".cache" / "benchmarks" / "peers"
OBAN_SINCE = (3, 12)
_STATEMENT = "type Result[T] = Cancel | Snooze | Record | T | None"
_AS_3_11 = """from typing import TypeVar, Union

T = TypeVar("T")
Result = Union[Cancel, Snooze, Record, T, None]"""


def python() -> Path:
    """The peers' interpreter; the first call makes the environment, which takes a minute.

    Raises:
        RuntimeError: a package can not be installed.
    """
    found = FOLDER / "bin" / "python"
    stamp = FOLDER / "installed.txt"
    wanted = LISTED.read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return found
    _run(sys.executable, "-m", "venv", "--clear", str(FOLDER))
    pip = (str(found), "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    if sys.version_info >= OBAN_SINCE:
        _run(*pip, "--requirement", str(LISTED))
    else:
        lines = wanted.splitlines()
        oban = [line for line in lines if line.startswith("oban==")]
        others = [line for line in lines if line and line[0] != "#" and line not in oban]
        _run(*pip, *others)
        _run(*pip, "--no-deps", "--ignore-requires-python", *oban)
        _rewrite()
    stamp.write_text(wanted)
    return found


def _rewrite() -> None:
    (path,) = FOLDER.glob("lib/python*/site-packages/oban/job.py")
    text = path.read_text()
    if _STATEMENT not in text:
        raise RuntimeError(f"{path} has not the statement that Python 3.11 can not read")
    path.write_text(text.replace(_STATEMENT, _AS_3_11))


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
