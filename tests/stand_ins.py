"""Stand-ins for programs: they write down how they are called, and answer as a test says.

Promise: `StandIns` puts programs of these names into a folder that is to be the whole path; `calls` are
their command lines, in order, and nothing else of that name runs.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path

# In the shell, because a rollout makes a hundred calls. The separators stand in no argument.
_BETWEEN, _END = "\x1f", "\x1e"
_PROGRAM = """#!/bin/sh
line="${0##*/} $*" call=${0##*/}
for one; do call="${call}BETWEEN$one"; done
case $line in *--password-stdin*) call="${call}BETWEEN$(/bin/cat)" ;; esac
# At once: two of a pipe write at the same time.
printf '%s' "${call}END" >>FOLDER/calls
. FOLDER/rules
"""


class StandIns:
    """Programs in a folder of their own."""

    def __init__(self, folder: Path, *names: str) -> None:
        """Make them; each succeeds and says nothing."""
        self.path = folder / "bin"
        self._folder = folder
        self._rules: list[str] = []
        self.path.mkdir(parents=True)
        (folder / "calls").touch()
        for name in names:
            program = self.path / name
            text = _PROGRAM.replace("BETWEEN", _BETWEEN).replace("END", _END)
            program.write_text(text.replace("FOLDER", shlex.quote(str(folder))))
            program.chmod(0o755)
        self._write()

    def answers(self, needle: str, answer: object = "", *, code: int = 0) -> None:
        """What a call answers whose command line has `needle`; the newest rule that fits decides."""
        text = answer if isinstance(answer, str) else json.dumps(answer)
        reply = f"printf '%s\\n' {shlex.quote(text)}{' >&2' if code else ''}"
        self._rules.insert(0, f"*{shlex.quote(needle)}*) {reply}; exit {code} ;;")
        self._write()

    def _write(self) -> None:
        (self._folder / "rules").write_text("\n".join(["case $line in", *self._rules, "esac", ""]))

    @property
    def calls(self) -> list[list[str]]:
        """All command lines so far."""
        text = (self._folder / "calls").read_text()
        return [call.split(_BETWEEN) for call in text.split(_END)[:-1]]

    def lines(self, *needles: str) -> list[str]:
        """The command lines that have one of these in them."""
        joined = [" ".join(call) for call in self.calls]
        return [line for line in joined if any(needle in line for needle in needles)]
