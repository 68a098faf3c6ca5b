"""The process that runs a container of the stand-in, and sees it to its end.

Promise: the command runs with exactly the environment it was created with, in an empty directory.
Its output is kept in order, its end is saved, and when its first process ends all that it started
is killed, as in a real container.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from typing import IO

from atemporal.twin import processes
from atemporal.twin.containers.container import CREATED, FRAME, Container, now


class Monitor:
    """The monitor of a container; `echo` copies the container's output to its own."""

    def __init__(self, container: Container, echo: bool) -> None:
        self._container = container
        self._echo = echo
        self._lock = threading.Lock()
        self._log = (container.directory / "log").open("ab", buffering=0)

    def run(self, report: IO[str]) -> None:
        """Run the container; `report` gets an empty line once it runs, or why it does not."""
        config = self._container.config
        processes.adopt_orphans()
        try:
            process = subprocess.Popen(
                config["argv"],
                env=config["env"],
                cwd=self._container.directory / "scratch",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                process_group=0,
            )
        except OSError as error:
            code = 127 if isinstance(error, FileNotFoundError) else 126
            why = f"exec: {config['argv'][0]!r}: {error.strerror}"
            self._container.save({**CREATED, "ExitCode": code, "Error": why})
            report.write(f"{why}\n")
            report.close()
            return
        running = {**CREATED, "Status": "running", "Running": True, "StartedAt": now()}
        running["Pid"] = process.pid
        self._container.save(running)
        report.write("\n")
        report.close()
        readers = [
            threading.Thread(target=self._keep, args=(1, process.stdout, config["log_limit"])),
            threading.Thread(target=self._keep, args=(2, process.stderr, config["log_limit"])),
        ]
        for reader in readers:
            reader.start()
        number = process.wait()
        # As in a container, nothing outlives the first process.
        me = os.getpid()
        while left := [pid for pid in processes.tree({me}) if pid != me]:
            processes.send(left, signal.SIGKILL)
        for reader in readers:
            reader.join()
        code = number if number >= 0 else 128 - number
        ended = {"Status": "exited", "Running": False, "Pid": 0, "ExitCode": code}
        self._container.save({**running, **ended, "FinishedAt": now()})

    def _keep(self, stream: int, pipe: IO[bytes], limit: int) -> None:
        while chunk := pipe.readline(16384):
            with self._lock:
                if self._log.tell() > limit // 2:
                    self._log.close()
                    path = self._container.directory / "log"
                    path.replace(path.with_name("log.1"))
                    self._log = path.open("ab", buffering=0)
                self._log.write(FRAME.pack(stream, len(chunk)) + chunk)
            if self._echo:
                emit(stream, chunk)


def emit(stream: int, chunk: bytes) -> None:
    """Write to our own output; a reader that has gone away misses it, the log does not."""
    try:
        os.write(stream, chunk)
    except BrokenPipeError:
        return
