"""What is on a RabbitMQ, and what our user may do there, seen without a change of anything.

Promise: no message is published or taken, no queue made. Each question is a channel of its own, because
the broker closes the channel with its refusal.
Mechanism: a passive declare says whether a queue is there, and who reads it. A declare with our own
arguments changes nothing on what is there: the broker answers that it is the same, or names the
argument that is another; so it is asked only of what is there. (One that vanishes between the two is
made, as each daemon would.) The right to write is seen by a publish in a transaction that is rolled
back: the broker asks for the right first. The right to read is seen by a consumer with an argument that
no queue takes, which the broker refuses after it has asked for the right.
Failure: AMQP has no question for bindings; those, and policies, are read from the management API, where
its address is known.
Source: RabbitMQ's guides on access control, on consumer priorities and on the HTTP API.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from urllib.request import Request, urlopen

from amqp import Message
from amqp.exceptions import AccessRefused, AMQPError, ChannelError, NotFound
from kombu import Connection, Exchange, Queue
from kombu.exceptions import KombuError

from atemporal.errors import Invalid, Refused, Service, Unavailable

_CONNECT_S, _SOCKET_S = 5, 10
_FAILURES = (AMQPError, KombuError, OSError, ValueError)
_NEVER_TAKEN = {"x-priority": "none"}
_REFUSED_ARGUMENT = 406
_WRONG = re.compile(r"inequivalent arg '(?P<name>[^']+)'.*?: (?P<how>received .*)", re.DOTALL)


@dataclass(frozen=True)
class QueueFacts:
    """A queue that is there."""

    messages: int
    consumers: int


@dataclass(frozen=True)
class Bound:
    """A binding: what of an exchange goes to which queue."""

    exchange: str
    routing_key: str
    queue: str


@dataclass(frozen=True)
class Policy:
    """A policy of the virtual host, or an operator's."""

    name: str
    pattern: str
    definition: dict[str, Any]


class Inspection:
    """A connection for questions; used by one thread, in a `with`."""

    def __init__(self, url: str) -> None:
        """Connect.

        Raises:
            Unavailable: the broker does not answer, or refuses us.
            Invalid: the URL is no broker's.
        """
        try:
            self._connection = Connection(
                url,
                connect_timeout=_CONNECT_S,
                transport_options={
                    "read_timeout": _SOCKET_S,
                    "write_timeout": _SOCKET_S,
                    "client_properties": {"connection_name": "atemporal doctor"},
                },
            )
            driver = self._connection.transport.driver_type
        except (KeyError, ValueError, ImportError) as error:
            raise Invalid(
                {"ATEMPORAL_BROKER_URL": "not a broker's; write amqp://user:password@host:5672//"}
            ) from error
        if driver != "amqp":
            raise Invalid({"ATEMPORAL_BROKER_URL": f"{driver} is no RabbitMQ"})
        try:
            self._connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
        except _FAILURES as error:
            why = str(error).removeprefix("(0, 0): ")
            where = self._connection.as_uri()
            raise Unavailable(f"RabbitMQ at {where}: {why}", Service.RABBITMQ) from error

    def __enter__(self) -> Inspection:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.release()

    @property
    def version(self) -> str:
        """The broker's, as it calls itself."""
        properties = self._connection.connection.server_properties
        return f"{properties.get('product', 'broker')} {properties.get('version', '')}".strip()

    @property
    def user(self) -> str:
        """Our name there."""
        return str(self._connection.userid or "guest")

    @property
    def vhost(self) -> str:
        """Our virtual host."""
        return str(self._connection.virtual_host or "/")

    def management(self, url: str) -> Management:
        """The management API at that address, for our virtual host.

        Raises:
            Invalid: it can not be one.
        """
        return Management(url, self.vhost, self.user, str(self._connection.password or "guest"))

    def queue(self, name: str) -> QueueFacts | None:
        """The queue of that name; None where there is none."""
        found = self._there(lambda channel: channel.queue_declare(name, passive=True))
        return QueueFacts(found.message_count, found.consumer_count) if found else None

    def has_exchange(self, exchange: Exchange) -> bool:
        """Whether there is an exchange of that name."""
        return self._there(_passive(exchange)) is not None

    def difference(self, one: Exchange | Queue) -> str | None:
        """What differs between an exchange or a queue that is there and ours; None: nothing.

        Raises:
            Refused: our user may not configure it, so the broker does not say.
        """

        def declare(channel: Any) -> None:
            bound = one(channel)
            if isinstance(one, Queue):
                bound.queue_declare()
            else:
                bound.declare()

        try:
            self._ask(declare)
        except AccessRefused as error:
            raise Refused(_text(error)) from error
        except ChannelError as error:
            if found := _WRONG.search(_text(error)):
                return f"{found['name']}: {found['how']}"
            return _text(error)
        return None

    def may_write(self, exchange: str, routing_key: str) -> bool:
        """Whether our user may publish there with that key, topic permissions included."""

        def publish(channel: Any) -> None:
            channel.tx_select()
            channel.basic_publish(Message(""), exchange=exchange, routing_key=routing_key)
            channel.tx_rollback()

        return self._may(publish)

    def may_read(self, queue: str) -> bool:
        """Whether our user may consume from a queue that is there."""

        def consume(channel: Any) -> None:
            channel.basic_qos(0, 1, False)
            channel.basic_consume(queue, arguments=_NEVER_TAKEN)

        try:
            return self._may(consume)
        except ChannelError as error:
            if error.reply_code == _REFUSED_ARGUMENT:
                return True
            raise

    def _may(self, question: Callable[[Any], Any]) -> bool:
        try:
            self._ask(question)
        except AccessRefused:
            return False
        except NotFound:
            # The right was asked for first.
            return True
        return True

    def _there(self, question: Callable[[Any], Any]) -> Any:
        try:
            return self._ask(question) or True
        except NotFound:
            return None

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        channel = None
        try:
            channel = self._connection.channel()
            answer = question(channel)
            channel.close()
        except ChannelError:
            raise
        except _FAILURES as error:
            raise Unavailable(f"RabbitMQ went away: {error}", Service.RABBITMQ) from error
        return answer


class Management:
    """RabbitMQ's management API, which only some have."""

    def __init__(self, url: str, vhost: str, user: str, password: str) -> None:
        """Take its address, like http://host:15672; nothing is asked yet.

        Who asks is the user that the address has, else the one given.

        Raises:
            Invalid: it can not be one.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Invalid({"--management": "write http://host:15672"})
        if parts.username:
            user, password = unquote(parts.username), unquote(parts.password or "")
        self._authorization = base64.b64encode(f"{user}:{password}".encode()).decode()
        where = parts._replace(netloc=parts.netloc.rpartition("@")[2])
        self._base = where.geturl().rstrip("/")
        self._vhost = quote(vhost, safe="")

    def bindings(self) -> set[Bound]:
        """All bindings of queues in the virtual host.

        Raises:
            Refused: it does not answer, or not to us.
        """
        found = self._get(f"/api/bindings/{self._vhost}")
        return {
            Bound(one["source"], one["routing_key"], one["destination"])
            for one in found
            if one.get("destination_type") == "queue"
        }

    def policies(self) -> list[Policy]:
        """All policies of the virtual host, an operator's included.

        Raises:
            Refused: it does not answer, or not to us.
        """
        found = [
            *self._get(f"/api/policies/{self._vhost}"),
            *self._get(f"/api/operator-policies/{self._vhost}"),
        ]
        return [
            Policy(one["name"], one["pattern"], dict(one.get("definition") or {}))
            for one in found
            if one.get("apply-to") != "exchanges"
        ]

    def _get(self, path: str) -> list[dict[str, Any]]:
        request = Request(
            self._base + path, headers={"Authorization": f"Basic {self._authorization}"}
        )
        try:
            with urlopen(request, timeout=_CONNECT_S) as response:
                answer = json.loads(response.read())
        except (OSError, HTTPException, ValueError) as error:
            raise Refused(f"the management API at {self._base}: {error}") from error
        if not isinstance(answer, list):
            raise Refused(f"the management API at {self._base} answers {path} with no list")
        return [one for one in answer if isinstance(one, dict)]


def missing(wanted: Iterable[Queue], found: set[Bound]) -> list[Bound]:
    """Which bindings of ours are not there."""
    ours = [Bound(one.exchange.name, one.routing_key, one.name) for one in wanted]
    return [one for one in ours if one.exchange and one not in found]


def _passive(exchange: Exchange) -> Callable[[Any], Any]:
    return lambda channel: channel.exchange_declare(exchange.name, exchange.type, passive=True)


def _text(error: AMQPError) -> str:
    return str(getattr(error, "reply_text", "") or error)
