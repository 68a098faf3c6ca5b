"""Where the programs of this project begin.

Promise: Ctrl-C ends a program that is still being imported without a word, with the exit code that a
shell knows for it; from `main` on, the program itself decides.
Mechanism: until its modules are there SIGINT has the system's own effect in place of Python's, which is
an exception in the middle of somebody's import.
"""

from __future__ import annotations

import importlib
import signal


def program(module: str) -> None:
    """Import a module and call its `main`."""
    before = signal.getsignal(signal.SIGINT)
    # One that was told to ignore it, as by nohup, goes on doing so.
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    main = importlib.import_module(module).main
    signal.signal(signal.SIGINT, before)
    main()


def cli() -> None:
    """`atemporal`."""
    program("atemporal.cli")


def scheduler() -> None:
    """`atemporal-scheduler`."""
    program("services.scheduler.__main__")


def launcher() -> None:
    """`atemporal-launcher`."""
    program("services.launcher.__main__")


def reaper() -> None:
    """`atemporal-reaper`."""
    program("services.reaper.__main__")


def api() -> None:
    """`atemporal-api`."""
    program("services.api.__main__")
