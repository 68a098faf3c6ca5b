"""What a process gives back once it has started.

Mechanism: imports and a client of EC2 leave freed memory behind that malloc keeps; glibc gives it back
when asked. One arena is enough for threads that wait most of the time; each more keeps its own heap.
What has been imported stays, so the garbage collector need not go through it again and again.
Failure: with another libc than glibc nothing of this but the collector's part happens.
"""

from __future__ import annotations

import ctypes
import gc

# mallopt(3), malloc.h
_M_ARENA_MAX = -8


def one_arena() -> None:
    """Let all threads share malloc's first arena; to be called before there are any."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def settle() -> None:
    """Give back what the start has left, and leave what stays out of the collector's way."""
    gc.collect()
    gc.freeze()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
