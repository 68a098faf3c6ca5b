"""Threads of which none dies in silence: what one of them raises is kept for the verdict."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable


class Crew:
    """Threads that do one thing each; `failures` has what they died of, safe to read after `join`."""

    def __init__(self) -> None:
        """Nobody is in it yet."""
        self.failures: list[str] = []
        self._threads: list[threading.Thread] = []

    def add(self, name: str, do: Callable[[], None]) -> None:
        """Let a thread of this name do it, once started."""
        self._threads.append(threading.Thread(target=self._watch, args=(name, do), name=name))

    def start(self) -> None:
        """Start all."""
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait for the end of all."""
        for thread in self._threads:
            thread.join()

    def _watch(self, name: str, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception:  # noqa: BLE001 - it is reported: the verdict names every one
            last = traceback.format_exc().strip()
            self.failures.append(f"the thread {name} died: {last}")
