"""Free TCP ports on the loopback address."""

from __future__ import annotations

import random
import socket

# Below the range that systems take outgoing ports from: else, while a server is down for a restart,
# some client's connection could sit on its port (or connect to itself, source = destination).
_RANGE = range(20_000, 32_000)
_given: set[int] = set()


def free_port() -> int:
    """Return a port nobody listens on; the same one is never given twice in a process.

    Raises:
        RuntimeError: all of the range is taken.
    """
    for port in random.sample(_RANGE, len(_RANGE)):
        if port not in _given and _is_free(port):
            _given.add(port)
            return port
    raise RuntimeError(f"no free port between {_RANGE.start} and {_RANGE.stop}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a port that only has connections in TIME_WAIT can be listened on.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
