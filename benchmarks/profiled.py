"""A profile of a block of work, when the process was started to be profiled.

Mechanism: the environment variable `BENCHMARK_PROFILE` names a folder, which gets one file a block.
"""

from __future__ import annotations

import cProfile
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = "BENCHMARK_PROFILE"


@contextmanager
def profiled(name: str) -> Iterator[None]:
    """Profile this thread's work in the block, if it is asked for."""
    folder = os.environ.get(FOLDER)
    if folder is None:
        yield
        return
    profile = cProfile.Profile()
    profile.enable()
    try:
        yield
    finally:
        profile.disable()
        profile.dump_stats(Path(folder) / f"{name}-{os.getpid()}.prof")
