"""Free TCP ports on the loopback address.

Promise: a port is given to one process at a time, once, however many test processes run side by side.
Mechanism: a UDP socket of the same number, which nothing here uses, is held until the process ends.
"""

from __future__ import annotations

import random
import socket

# Below the range that systems take outgoing ports from: else, while a server is down for a restart,
# some client's connection could sit on its port (or connect to itself, source = destination).
_RANGE = range(20_000, 32_000)


def free_port() -> int:
    """Return a port that nobody listens on and no other call, here or elsewhere, was given.

    Raises:
        RuntimeError: all of the range is taken.
    """
    for port in random.sample(_RANGE, len(_RANGE)):
        if _reserve(port):
            return port
    raise RuntimeError(f"no free port between {_RANGE.start} and {_RANGE.stop}")


def _reserve(port: int) -> bool:
    with socket.socket(type=socket.SOCK_DGRAM) as held:
        try:
            held.bind(("127.0.0.1", port))
        except OSError:
            return False
        if not _is_free(port):
            return False
        # Never closed by us: the reservation ends with the process.
        held.detach()
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a port that only has connections in TIME_WAIT can be listened on.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
