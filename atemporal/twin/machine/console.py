"""The serial console of a machine.

Promise: writers see a FIFO in the machine's root, never the file behind it; whole lines of up to 4
KiB stay whole. What comes after its end goes nowhere.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path


class Console:
    """Copies what is written into the FIFO to the log."""

    def __init__(self, fifo: Path, log: Path) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        self._writer = os.open(fifo, os.O_WRONLY)
        os.set_blocking(reader, True)
        # A write after the close would go to whatever file has the number by then.
        self._open = threading.Lock()
        self._closed = False
        self._copier = threading.Thread(target=self._copy, args=(reader,), daemon=True)
        self._copier.start()

    def write(self, text: str) -> None:
        """Write text."""
        with self._open:
            if not self._closed:
                os.write(self._writer, text.encode())

    def close(self) -> None:
        """Keep what has been written so far, to the last byte."""
        with self._open:
            self._closed = True
            os.close(self._writer)
        self._copier.join(timeout=5)

    def _copy(self, reader: int) -> None:
        while chunk := os.read(reader, 65536):
            os.write(self._log, chunk)
