"""A terminal of a given size, with the command line in it: what it shows, and keys that are pressed.

Mechanism: a pseudo terminal; what is written to it is read until what is waited for has come.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence

PATIENCE_S = 60.0
# Tests that run in the background were told to pass over SIGINT, and a child inherits that; what a
# terminal's shell starts was not.
PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from atemporal.cli import main; main(prog_name='atemporal')"
)


class Terminal:
    """A process on a terminal; `text` is all that it has written."""

    def __init__(self, process: subprocess.Popen[bytes], end: int) -> None:
        self.process = process
        self.text = ""
        self._end = end

    def press(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._end, keys)

    def sees(self, what: str, *, times: int = 1) -> None:
        """Wait until it has written this so many times."""
        until = time.monotonic() + PATIENCE_S
        while self.text.count(what) < times:
            assert time.monotonic() < until, self.text
            assert self._read(), self.text

    def ends(self) -> int:
        """Wait for its end, and return its exit code."""
        while self._read():
            pass
        return self.process.wait(PATIENCE_S)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._end], [], [], PATIENCE_S)
        assert ready, self.text
        # Linux answers an error where the last writer is gone.
        with contextlib.suppress(OSError):
            if data := os.read(self._end, 65_536):
                self.text += data.decode(errors="replace")
                return True
        return False


@contextlib.contextmanager
def terminal(
    *words: str, env: Mapping[str, str], columns: int = 120, lines: int = 30
) -> Iterator[Terminal]:
    """Call `atemporal` on a terminal of this size."""
    with on_terminal([sys.executable, "-c", PROGRAM, *words], env, columns, lines) as shown:
        yield shown


@contextlib.contextmanager
def on_terminal(
    argv: Sequence[str], env: Mapping[str, str], columns: int = 120, lines: int = 30
) -> Iterator[Terminal]:
    """Start a program on a terminal of this size."""
    end, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    own = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        argv,
        stdin=other,
        stdout=other,
        stderr=other,
        env={**own, "TERM": "xterm", **env},
        start_new_session=True,
    )
    os.close(other)
    try:
        yield Terminal(process, end)
    finally:
        process.kill()
        process.wait()
        os.close(end)
