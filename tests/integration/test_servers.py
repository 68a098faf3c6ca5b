"""The tests' own servers do what the tests rely on: durable over a crash, empty for each module."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pika
import psycopg2
import pytest

from tests.servers import ports
from tests.servers.ports import free_port
from tests.servers.postgres import Postgres
from tests.servers.rabbitmq import RabbitMQ


def _query(url: str, statement: str) -> list[tuple[Any, ...]]:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        rows = cursor.fetchall() if cursor.description else []
        connection.commit()
        return list(rows)


@contextmanager
def _channel(url: str) -> Iterator[Any]:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        yield channel
    finally:
        connection.close()


def _publish(channel: Any, queue: str, body: bytes) -> None:
    durable = pika.BasicProperties(delivery_mode=2)
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
    channel.basic_publish("", queue, body, durable, mandatory=True)


def _get(channel: Any, queue: str) -> bytes | None:
    _, _, body = channel.basic_get(queue, auto_ack=True)
    return body if body is None else bytes(body)


def _crash(server: Postgres | RabbitMQ) -> None:
    server.kill()
    server.start()


def _restart(server: Postgres | RabbitMQ) -> None:
    server.restart()


Interruption = Callable[[Postgres | RabbitMQ], None]
both_ways = pytest.mark.parametrize("interrupt", [_restart, _crash])


@both_ways
def test_postgres_keeps_committed_rows(postgres_server: Postgres, interrupt: Interruption) -> None:
    url = postgres_server.create_database()
    _query(url, "CREATE TABLE kept AS SELECT 7 AS answer")
    interrupt(postgres_server)
    assert _query(url, "SELECT answer FROM kept") == [(7,)]


def test_databases_are_empty_and_apart(postgres_server: Postgres, database_url: str) -> None:
    _query(database_url, "CREATE TABLE mine (id int)")
    other = postgres_server.create_database()
    count = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    assert _query(other, count) == [(0,)]
    copy = postgres_server.create_database(template=database_url.rpartition("/")[2])
    assert _query(copy, count) == [(1,)]


@both_ways
def test_rabbitmq_keeps_confirmed_messages(
    rabbitmq_server: RabbitMQ, broker_url: str, interrupt: Interruption
) -> None:
    with _channel(broker_url) as channel:
        _publish(channel, "kept", b"hello")
    interrupt(rabbitmq_server)
    with _channel(broker_url) as channel:
        assert _get(channel, "kept") == b"hello"
        assert _get(channel, "kept") is None


def test_vhosts_are_empty_and_apart(rabbitmq_server: RabbitMQ, broker_url: str) -> None:
    with _channel(broker_url) as channel:
        _publish(channel, "mine", b"hello")
    vhost = rabbitmq_server.create_vhost().rpartition("/")[2]
    assert rabbitmq_server.ctl("list_queues", "--vhost", vhost, "name").split() == []


def test_ctl_says_what_went_wrong(rabbitmq_server: RabbitMQ) -> None:
    with pytest.raises(RuntimeError, match=r"no_such_vhost|does not exist"):
        rabbitmq_server.ctl("delete_vhost", "nowhere")


def test_a_given_server_is_used_and_never_stopped(
    postgres_server: Postgres, rabbitmq_server: RabbitMQ
) -> None:
    url = postgres_server.create_database()
    given = Postgres(url)
    database = given.create_database()
    assert _query(database, "SELECT 1") == [(1,)]
    given.close()
    with pytest.raises(psycopg2.OperationalError, match="does not exist"):
        _query(database, "SELECT 1")

    broker = RabbitMQ(rabbitmq_server.create_vhost())
    with _channel(broker.url) as channel:
        _publish(channel, "atemporal.launch", b"left over")
    with _channel(broker.create_vhost()) as channel:
        _publish(channel, "atemporal.launch", b"mine")
        assert _get(channel, "atemporal.launch") == b"mine"
    broker.close()

    for server in (given, broker):
        for action in (server.stop, server.kill, server.restart):
            with pytest.raises(RuntimeError, match="unset it"):
                action()


def test_ports_are_given_once_to_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    few = range(31_000, 31_040)
    monkeypatch.setattr(ports, "_RANGE", few)
    script = f"from tests.servers import ports; ports._RANGE = {few!r}; print(ports.free_port())"
    script += "; input()"
    other = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout is not None
        theirs = int(other.stdout.readline())
        mine: list[int] = []
        with pytest.raises(RuntimeError, match="no free port"):
            mine.extend(iter(free_port, None))
        assert len(mine) == len(set(mine)) > 0
        assert theirs not in mine
        other.communicate("\n")
    # It has ended, and its reservation with it.
    assert free_port() == theirs
