"""The servers of one benchmark run: as durable as for real, on loopback, and on the same processors.

Promise: Postgres fsyncs every commit; RabbitMQ keeps quorum queues with its own default settings. Each
measure gets a virtual host of its own and, unless it shares one by name, a database of its own.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import psycopg2

from tests.servers import postgres, rabbitmq
from tests.servers.postgres import DURABLE, OwnPostgres
from tests.servers.rabbitmq import NodeRabbitMQ

# RabbitMQ's own defaults, but for the memory: a share of the machine's would depend on the machine.
_LIMITS = "vm_memory_high_watermark.absolute = 4GB\ndisk_free_limit.absolute = 100MB\n"
_SHOWN = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers")


class Servers:
    """A Postgres and a RabbitMQ, from when the block begins until it ends."""

    def __enter__(self) -> Self:
        """Start both.

        Raises:
            RuntimeError: one is not installed.
        """
        postgres_binaries, rabbitmq_binaries = postgres.find(), rabbitmq.find()
        if postgres_binaries is None or rabbitmq_binaries is None:
            raise RuntimeError("a Postgres and a RabbitMQ are needed: `make bench` installs them")
        self.postgres = OwnPostgres(postgres_binaries, DURABLE)
        try:
            self.rabbitmq = NodeRabbitMQ(rabbitmq_binaries, _LIMITS)
        except BaseException:
            self.postgres.close()
            raise
        self._databases: dict[str, str] = {}
        self._vhost: str | None = None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End both and remove what they wrote."""
        self.rabbitmq.close()
        self.postgres.close()

    def database(self, name: str) -> str:
        """The URL of the database that measures share under this name; a new one is empty."""
        if name not in self._databases:
            self._databases[name] = self.postgres.create_database()
        return self._databases[name]

    def drop(self, prefix: str) -> None:
        """Drop the databases whose name begins so."""
        for name in [one for one in self._databases if one.startswith(prefix)]:
            self.postgres.drop_database(self._databases.pop(name))

    def vhost(self) -> str:
        """The URL of a new virtual host, the only one beside the default one."""
        if self._vhost is not None:
            name = urlsplit(self._vhost).path[1:]
            self.rabbitmq.ctl("eval", f'rabbit_vhost:delete(<<"{name}">>, <<"benchmark">>).')
        self._vhost = self.rabbitmq.create_vhost()
        return self._vhost

    def conditions(self) -> dict[str, Any]:
        """The servers' versions and the settings that a cheat would change."""
        connection = psycopg2.connect(self.postgres.url("postgres"))
        try:
            with connection.cursor() as cursor:
                shown = {}
                for name in _SHOWN:
                    cursor.execute(f"SHOW {name}")
                    shown[name] = cursor.fetchone()[0]
        finally:
            connection.close()
        version = self.rabbitmq.ctl("eval", "rabbit_misc:version().").strip().strip('"')
        release = self.rabbitmq.ctl("eval", "erlang:system_info(otp_release).").strip().strip('"')
        return {"postgres": shown, "rabbitmq": {"version": version, "erlang": release}}
