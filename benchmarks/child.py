"""A process beside a measure: started, heard, and ended by closing its input.

Protocol: it prints `ready` when it is; it runs until its standard input ends; its last line may be JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self


class Child:
    """A Python module run as a process, from when the block begins until it ends."""

    def __init__(self, module: str, *args: str, env: Mapping[str, str], count: int = 1) -> None:
        """Start `count` of `python -m module args...` and return when all are ready.

        Raises:
            RuntimeError: one ended instead; its output is on standard error.
        """
        self._module = module
        argv: Sequence[str] = (sys.executable, "-m", module, *args)
        self._processes = [
            subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=dict(env),
            )
            for _ in range(count)
        ]
        self.results: list[dict[str, Any]] = []
        for process in self._processes:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                self._kill()
                raise RuntimeError(f"{module} did not get ready")

    def stop(self) -> list[dict[str, Any]]:
        """End all, and return what each said at its end.

        Raises:
            RuntimeError: one failed; its output is on standard error.
        """
        processes, self._processes = self._processes, []
        for process in processes:
            output, _ = process.communicate(timeout=60)
            if process.returncode:
                raise RuntimeError(f"{self._module} ended with {process.returncode}")
            lines = output.strip().splitlines()
            self.results.append(json.loads(lines[-1]) if lines else {})
        return self.results

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave no process behind."""
        self._kill()

    def _kill(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes = []
