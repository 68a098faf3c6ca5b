"""Whatever can go wrong outside of EC2: kills, freezes, restarts, lost, doubled and foul messages.

Each kind is a function that does it once; `FaultInjector` draws and counts. Nothing that is
promised is taken away: notifications may all be lost, but a job message that another system was told is
in the queue is a promise, so that queue is never emptied (to restart its broker is another thing).
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from uuid import UUID

import httpx
import pika
from pika.exceptions import AMQPError
from sqlalchemy import text

from atemporal.errors import AtemporalError
from atemporal.messages import COMMANDS, INTERNAL, JobSubmit
from tests.chaos.crew import Crew
from tests.chaos.fleet import Fleet

POISON = (b"", b"\xff\xfe", b"{", b"[]", b'{"type":"job.due"}', b'{"type":"nothing","v":1}')
NOTIFICATIONS = ("atemporal.launch", "atemporal.reap")
KEYS = ("job.submit", "job.due", "instance.exited")
SERVER_TROUBLES = ("broker restart", "broker kill", "broker freeze", "pg restart")


class Deck:
    """Draws in a random order in which each comes before any comes again: a short chaos run has all."""

    def __init__(self, rng: random.Random, cards: Sequence[str]) -> None:
        self._rng = rng
        self._cards = list(cards)
        self._left: list[str] = []

    def draw(self) -> str:
        """The next one."""
        if not self._left:
            self._left = self._rng.sample(self._cards, len(self._cards))
        return self._left.pop()


class FaultInjector(Crew):
    """Draws faults, in threads of its own, until stopped."""

    def __init__(self, fleet: Fleet, rng: random.Random, *, kill_every_s: float) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.timeline: list[tuple[float, str]] = []
        self.poison: list[str] = []
        self.missed = self.purged = 0
        self.broken: list[tuple[str, UUID]] = []
        self._fleet = fleet
        self._rng = rng
        self._stop = threading.Event()
        replicas = fleet.replicas
        self._to_kill = Deck(rng, [*replicas] * 4 + ["twin"])
        self._to_freeze = Deck(rng, replicas)
        self._troubles = Deck(rng, SERVER_TROUBLES)
        for do, pause in (
            (self._kill, kill_every_s),
            (self._freeze, 15.0),
            (self._server_trouble, 20.0),
            (self._drop_connections, 8.0),
            (self._purge, 12.0),
            (self._poison, 6.0),
            (self.forge, 3.0),
            (self._double_and_reorder, 0.5),
        ):
            self.add(do.__name__.strip("_"), partial(self._loop, do, pause))

    def stop(self) -> None:
        """End; whatever was stopped runs again."""
        self._stop.set()
        self.join()
        self._fleet.revive()

    @property
    def kinds(self) -> set[str]:
        """All that it can do."""
        services = {name.partition("-")[0] for name in self._fleet.replicas}
        return {
            *(f"kill -9 {name}" for name in (*services, "twin")),
            *(f"freeze {name}" for name in services),
            *SERVER_TROUBLES,
            *("pg connections dropped", "notifications purged", "poison", "forged callback"),
            "message doubled",
        }

    def note(self, what: str, times: int = 1) -> None:
        """Count faults of one moment and remember when."""
        self.counts[what] += times
        how_often = f" {times} times" if times > 1 else ""
        self.timeline.append((time.time(), f"fault: {what}{how_often}"))

    def _loop(self, do: Callable[[], None], pause: float) -> None:
        while not self._stop.wait(pause * self._rng.uniform(0.5, 1.5)):
            try:
                do()
            except (AMQPError, OSError, AtemporalError, httpx.HTTPError):
                # Another injector has its target down just now.
                self.missed += 1

    def _kill(self) -> None:
        name = self._to_kill.draw()
        self._fleet.kill(name)
        self.note(f"kill -9 {name.partition('-')[0]}")
        self._fleet.start(name)

    def _freeze(self) -> None:
        name = self._to_freeze.draw()
        self._fleet.signal(name, signal.SIGSTOP)
        self.note(f"freeze {name.partition('-')[0]}")
        self._stop.wait(self._rng.uniform(1, 6))
        self._fleet.signal(name, signal.SIGCONT)

    def _server_trouble(self) -> None:
        what = self._troubles.draw()
        rabbitmq, keep = self._fleet.rabbitmq, self._fleet.keep
        match what:
            case "broker restart":
                keep(rabbitmq.restart)
            case "broker kill":
                keep(rabbitmq.kill)
                keep(rabbitmq.start)
            case "broker freeze":
                rabbitmq.pause()
                self._stop.wait(self._rng.uniform(1, 5))
                rabbitmq.resume()
            case "pg restart":
                keep(self._fleet.postgres.kill)
                keep(self._fleet.postgres.start)
        self.note(what)

    def _drop_connections(self) -> None:
        with self._fleet.database.begin() as tx:
            dropped = tx.scalar(
                text(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    " AND random() < 0.5"
                )
            )
        if dropped:
            self.note("pg connections dropped")

    def _channel(self) -> tuple[pika.BlockingConnection, Any]:
        parameters = pika.URLParameters(self._fleet.broker_url)
        parameters.socket_timeout = parameters.blocked_connection_timeout = 5
        connection = pika.BlockingConnection(parameters)
        return connection, connection.channel()

    def _purge(self) -> None:
        """Lose all notifications of some seconds, by being served before the daemons.

        What is poison goes back when the connection closes, since all of it has to be found.
        """
        connection, channel = self._channel()
        before = self.purged

        def lose(_channel: Any, method: Any, properties: Any, _body: bytes) -> None:
            if properties.message_id not in self.poison:
                channel.basic_ack(method.delivery_tag)
                self.purged += 1

        for queue in NOTIFICATIONS:
            channel.basic_consume(queue, lose, arguments={"x-priority": 10})
        until = time.monotonic() + self._rng.uniform(1, 4)
        while (left := until - time.monotonic()) > 0 and not self._stop.is_set():
            connection.process_data_events(time_limit=left)
        connection.close()
        if self.purged > before:
            self.note("notifications purged")

    def _poison(self) -> None:
        connection, channel = self._channel()
        channel.confirm_delivery()
        key, body = self._rng.choice(KEYS), self._rng.choice(POISON)
        name = f"poison-{len(self.poison)}"
        properties = pika.BasicProperties(message_id=name, delivery_mode=2)
        self.poison.append(name)
        try:
            exchange = COMMANDS if key == JobSubmit.type_name() else INTERNAL
            channel.basic_publish(exchange, key, body, properties, mandatory=True)
        except (AMQPError, OSError):
            self.poison.remove(name)
            raise
        connection.close()
        self.note("poison")

    def forge(self) -> None:
        """Call a job back with a token that nobody made; to be believed breaks a promise."""
        with self._fleet.database.begin() as tx:
            row = tx.execute(
                text(
                    "SELECT job_id, number FROM attempts WHERE state <> 'closed'"
                    " ORDER BY random() LIMIT 1"
                )
            ).one_or_none()
        if row is None:
            return
        url = f"{self._fleet.api_url}/jobs/{row.job_id}/callback"
        headers = {"Authorization": f"Bearer k1.{self._rng.getrandbits(256):064x}"}
        method = self._rng.choice(["PUT", "PATCH", "DELETE"])
        answer = httpx.request(method, url, headers=headers, json={"exit_code": 0}, timeout=5)
        self.note("forged callback")
        if answer.status_code not in (401, 404, 422, 500, 503):
            broken = (
                f"a forged {method} for attempt {row.number} was answered {answer.status_code}"
            )
            self.broken.append((broken, row.job_id))

    def _double_and_reorder(self) -> None:
        """Copy what daemons tell each other for some seconds; send the copies late and shuffled."""
        connection, channel = self._channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        for key in ("job.due", "instance.*", "job.cancel"):
            channel.queue_bind(queue, INTERNAL, key)
        self._stop.wait(self._rng.uniform(2, 5))
        copies = []
        while (got := channel.basic_get(queue, auto_ack=True))[0]:
            copies.append((got[0].routing_key, got[2]))
        channel.queue_unbind(queue, INTERNAL, "job.due")
        self._rng.shuffle(copies)
        for key, body in copies:
            channel.basic_publish(INTERNAL, key, body)
        connection.close()
        if copies:
            self.note("message doubled", len(copies))
