"""What py-amqp and kombu read off a connection, made safe against what anybody may have sent.

Promise: a message whose properties can not be read is a message without any that says why, and ends
nothing else; no header changes a body.
Mechanism: py-amqp (5.4.2) reads a content header's properties at once, and raises out of the connection
for text that is not UTF-8 or a time that Python has not; the broker then delivers the same again. Here
such a header is exchanged for one that says so. kombu (5.7.0) unpacks a body whose header `compression`
asks for it, whatever its size will be; here that header is taken away.
py-amqp reads a frame in three pieces, each with a system call of its own, and a message is three frames:
here it reads what has arrived, in one call, and takes the pieces from that. In the middle of a frame it
would ask a socket that has nothing again and again, whatever the deadline; here that is a TimeoutError,
and what has come of the frame is kept for the next read.
"""

from __future__ import annotations

import contextlib
import select
import ssl
from collections.abc import Callable
from struct import error as struct_error
from struct import pack
from time import monotonic
from typing import Any

from amqp.exceptions import AMQPError
from amqp.method_framing import frame_handler as _frame_handler
from amqp.serialization import dumps
from kombu.transport import pyamqp

UNREADABLE = "x-atemporal-unreadable"

_CONTENT_HEADER = 2
# Class, weight and size of the body; the properties follow.
_FIXED = 12
_ONLY_HEADERS = 0x2000
_ERRORS = (
    *(ValueError, OverflowError, OSError, LookupError, TypeError, struct_error, AMQPError),
    # Tables in tables, deeper than Python's own stack.
    RecursionError,
)

# What a socket says that does not wait, or has waited for as long as it may; the second one is TLS's.
_NOTHING_THERE = (BlockingIOError, ssl.SSLWantReadError)

# About a dozen small messages; each piece taken from the front copies the rest.
_READ = 4096

Frame = tuple[int, int, bytes]


def frame_handler(connection: Any, callback: Any) -> Callable[[Frame], bool]:
    """Read frames as py-amqp does, but for properties that it can not read."""
    read: Callable[[Frame], bool] = _frame_handler(connection, callback)

    def on_frame(frame: Frame) -> bool:
        kind, channel, content = frame
        if kind != _CONTENT_HEADER:
            return read(frame)
        try:
            return read(frame)
        except _ERRORS as error:
            marked = dumps("F", [{UNREADABLE: f"its properties can not be read: {error}"[:500]}])
            header = bytes(content[:_FIXED]) + pack(">H", _ONLY_HEADERS) + marked
            return read((kind, channel, header))

    return on_frame


class PlainMessage(pyamqp.Message):  # type: ignore[misc]
    """A message received, with its body as it came."""

    def __init__(self, msg: Any, channel: Any = None, **more: Any) -> None:
        (msg.properties.get("application_headers") or {}).pop("compression", None)
        super().__init__(msg, channel=channel, **more)


def read_ahead(transport: Any) -> None:
    """Let a connection take from its socket whatever has come, and end a read where nothing has."""
    recv = transport.sock.recv

    def read(wanted: int) -> bytes:
        try:
            received: bytes = recv(max(wanted, _READ))
        except _NOTHING_THERE as error:
            raise TimeoutError("the rest of a frame has not come yet") from error
        return received

    transport._quick_recv = read


def read_until(connection: Any, until: float, enough: Callable[[], bool]) -> None:
    """Handle what arrives until `enough()`, or until that time of `monotonic`.

    What has arrived is handled in any case. `connection` is py-amqp's. Its own way to wait with a
    timeout counts in whole milliseconds, and asks the system twice for each frame.
    """
    sock = connection.transport.sock
    while not enough():
        with contextlib.suppress(TimeoutError), connection.transport.having_timeout(0):
            while True:
                connection.blocking_read()
                if enough():
                    return
        remaining = until - monotonic()
        if remaining <= 0:
            return
        select.select([sock], [], [], remaining)
