"""A server's process: in the foreground, below the tests, its output in a file.

Promise: `wait_ready` returns when the server serves, or raises with the end of its output; a stopped
child is always reaped, by force when it does not go by itself. Where the system can do it (Linux's
`setpriv`), the child also ends when the tests are killed and nobody is left to stop it.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


class Child:
    """One running process of a server."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> None:
        """Start `argv` with its output appended to `log`, as `user` when one is given (needs root)."""
        self.name = Path(argv[0]).name
        self._log = log
        setpriv = shutil.which("setpriv")
        guard = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
        with log.open("ab") as output:
            # A session of its own: an interrupt typed at the terminal is for pytest alone, which
            # then takes its servers down in order.
            self._process = subprocess.Popen(
                [*guard, *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                env=env,
                user=user,
                extra_groups=[] if user else None,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def wait_ready(self, ready: Callable[[], bool], within_s: float = 60) -> None:
        """Return once `ready()` holds.

        Raises:
            RuntimeError: the process ended, or the time is over; with the end of its output.
        """
        deadline = time.monotonic() + within_s
        while not ready():
            if self._process.poll() is not None:
                raise RuntimeError(f"{self.name} ended at once:\n{self.output()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} not ready in {within_s} s:\n{self.output()}")
            time.sleep(0.02)

    def wait(self, within_s: float = 60) -> int:
        """Return the status that it ends with by itself.

        Raises:
            subprocess.TimeoutExpired: it has not ended in time.
        """
        return self._process.wait(within_s)

    def end(self, how: signal.Signals, within_s: float = 30) -> None:
        """Send the signal and wait until the process is gone; after `within_s` it is killed."""
        self._process.send_signal(how)
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def output(self, lines: int = 30) -> str:
        """The last lines of what the process wrote."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])
