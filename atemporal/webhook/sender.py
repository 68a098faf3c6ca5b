"""The request that brings an event to its receiver.

Promise: a request is over within `TOTAL_S`, whatever the receiver does, but for what the resolver of
this machine takes; it goes to an address that was checked, and to no other: every address of the name
is checked, and one of these is connected to, without asking for the name again. No redirect is
followed, no proxy is asked, no more than a quarter of a megabyte of an answer is read. Neither the URL
nor the body is in an error, and nothing of what the receiver wrote.
Mechanism: the library's connection pool over a network of our own, which resolves, checks and connects,
and gives each read and write no more time, and an answer no more bytes, than the request has left: the
library itself reads headers and interim answers without an end. A connection may be used again for half
a minute.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic
from typing import Any

from atemporal import __version__
from atemporal.absent import absent
from atemporal.errors import Refused
from atemporal.webhook.address import Network, why_refused
from atemporal.webhook.answer import Answer

# The asynchronous half is not used, and its libraries are heavy.
with absent("anyio"), absent("trio"), absent("h2"), absent("socksio"):
    import httpcore

CONNECT_S, READ_S, TOTAL_S = 5.0, 10.0, 15.0
_BODY, _ANSWER = 4096, 262_144
_KEEP_S = 30.0

Resolver = Callable[[str, int], Sequence[str]]


def resolve(host: str, port: int) -> Sequence[str]:
    """All addresses of a host, as this machine resolves it.

    Raises:
        OSError: it has none, or nobody says.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        # Labels that are empty or too long never get as far as the resolver.
        raise OSError(f"its name can not be one: {error}") from None
    return list(dict.fromkeys(str(one[4][0]) for one in found))


class Sender:
    """Sends requests, from any number of threads; keeps connections for a while."""

    def __init__(
        self,
        *,
        allowed: Sequence[Network] = (),
        most: int = 16,
        resolver: Resolver = resolve,
        tls: ssl.SSLContext | None = None,
        total_s: float = TOTAL_S,
    ) -> None:
        """Take the networks beyond the public internet, and how many requests there are at once."""
        self._network = _CheckedNetwork(allowed, resolver)
        self._total_s = total_s
        self._pool = httpcore.ConnectionPool(
            ssl_context=tls or ssl.create_default_context(),
            max_connections=most,
            max_keepalive_connections=most,
            keepalive_expiry=_KEEP_S,
            network_backend=self._network,
        )

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send a body; whatever goes wrong is in the answer."""
        self._network.begin(monotonic() + self._total_s)
        sent = [
            ("Content-Type", "application/json"),
            ("User-Agent", f"atemporal/{__version__}"),
            *headers.items(),
        ]
        limits = {"connect": CONNECT_S, "read": READ_S, "write": READ_S, "pool": CONNECT_S}
        try:
            with self._pool.stream(
                "POST", url, headers=sent, content=body, extensions={"timeout": limits}
            ) as response:
                asked_s = _seconds(response.headers)
                self._read(response.iter_stream())
                return Answer(response.status, asked_s=asked_s)
        except Refused as error:
            return Answer(error=str(error))
        except _FAILURES as error:
            return Answer(error=_words(error))

    def close(self) -> None:
        """Close what is kept."""
        self._pool.close()

    @staticmethod
    def _read(chunks: Iterable[bytes]) -> None:
        """Read a short answer, so that its connection can be used again; of a long one no more."""
        left = _BODY
        for chunk in chunks:
            left -= len(chunk)
            if left < 0:
                return


_FAILURES = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
    ssl.SSLError,
    OSError,
)


def _words(error: Exception) -> str:
    if isinstance(error, httpcore.ConnectTimeout):
        return "the receiver can not be reached in time"
    if isinstance(error, httpcore.TimeoutException):
        return "the receiver did not answer in time"
    if isinstance(error, httpcore.ProtocolError):
        # The error repeats what came.
        return "what answers does not speak HTTP/1.1"
    return f"the receiver can not be reached: {error}"


def _seconds(headers: Iterable[tuple[bytes, bytes]]) -> float:
    """What a receiver asks for by Retry-After; a date there is passed over."""
    for name, value in headers:
        if name.lower() == b"retry-after" and value.isdigit():
            return float(value[:9])
    return 0.0


class _CheckedNetwork(httpcore.NetworkBackend):
    """Connects to checked addresses only."""

    def __init__(self, allowed: Sequence[Network], resolver: Resolver) -> None:
        self._allowed = allowed
        self._resolver = resolver
        self._plain = httpcore.SyncBackend()
        # A request has its thread to itself.
        self._of_thread = threading.local()

    def begin(self, ends_at: float) -> None:
        self._of_thread.ends_at = ends_at
        self._of_thread.bytes_left = _ANSWER

    def left_s(self, timeout: float | None, over: type[Exception]) -> float:
        left: float = self._of_thread.ends_at - monotonic()
        if left <= 0:
            raise over
        return left if timeout is None else min(timeout, left)

    def count(self, received: bytes) -> bytes:
        self._of_thread.bytes_left -= len(received)
        if self._of_thread.bytes_left < 0:
            raise httpcore.RemoteProtocolError("the answer has no end")
        return received

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = self._resolver(host, port)
        for address in addresses:
            why = why_refused(address, self._allowed)
            if why is not None:
                raise Refused(f"the receiver's address {why}")
        failure: Exception = httpcore.ConnectError("its name has no address")
        for address in addresses:
            try:
                stream = self._plain.connect_tcp(
                    address,
                    port,
                    self.left_s(timeout, httpcore.ConnectTimeout),
                    socket_options=socket_options,
                )
                return _TimedStream(stream, self)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


class _TimedStream(httpcore.NetworkStream):
    """A connection on which no step takes longer than the request has left."""

    def __init__(self, stream: httpcore.NetworkStream, network: _CheckedNetwork) -> None:
        self._stream = stream
        self._network = network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left_s = self._network.left_s(timeout, httpcore.ReadTimeout)
        return self._network.count(self._stream.read(max_bytes, left_s))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._network.left_s(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        secured = self._stream.start_tls(
            ssl_context, server_hostname, self._network.left_s(timeout, httpcore.ConnectTimeout)
        )
        return _TimedStream(secured, self._network)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
