"""RabbitMQ in memory, with the interface of `atemporal.broker.Link`.

Promise: what RabbitMQ may do to us happens: a batch that was not acknowledged comes again to
somebody, an acknowledged one never; messages are lost, doubled and shuffled; a publish fails before
or after it was done. Only job messages of other systems are not lost once confirmed: for them the
broker's word is the promise.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from atemporal.broker import DEAD, QUEUES, Delivery, Outgoing
from atemporal.broker.dead_letters import copy_of
from atemporal.errors import Unknown
from atemporal.messages import SUBMIT
from tests.sim.world import World, unavailable

DELIVERY_LIMIT = 20


@dataclass
class Message:
    """One message in a queue."""

    outgoing: Outgoing
    reply_to: str | None = None
    deliveries: int = 0

    @property
    def delivery_tag(self) -> int:
        """What tells one message on a link from the others."""
        return id(self)


class Broker:
    """The queues, and who hears what nobody has to hear."""

    def __init__(self, world: World) -> None:
        """Begin with empty queues."""
        self._world = world
        self.queues: dict[str, list[Message]] = {queue.name: [] for queue in QUEUES}
        self._bound: dict[str, list[str]] = defaultdict(list)
        for queue in QUEUES:
            if queue.exchange.name:
                self._bound[queue.routing_key].append(queue.name)
        self.heard: Counter[str] = Counter()
        self.replies: list[Outgoing] = []
        self.links: list[Link] = []
        self.copies = 0

    def take(self, outgoing: Outgoing, reply_to: str | None = None) -> bool:
        """Route one message; tell whether a queue has it."""
        names = self._bound[outgoing.routing_key] if outgoing.exchange else [outgoing.routing_key]
        if outgoing.exchange:
            self.heard[outgoing.message_id] += 1
        for name in names:
            if name == "replies":
                self.replies.append(outgoing)
                continue
            queue = self.queues[name]
            if name not in (SUBMIT, DEAD) and self._world.happens("message lost", name):
                continue
            # A copy for the dead letters that is published again is made again, with another time.
            twice = name != DEAD and self._world.happens("message doubled", name)
            for _ in range(2 if twice else 1):
                queue.append(Message(outgoing, reply_to))
        return bool(names)

    def of(self, name: str) -> list[Message]:
        """What is in a queue, or was handed out and not acknowledged."""
        handed_out = [one for link in self.links for queue, one in link._unacked if queue == name]
        return [*self.queues[name], *handed_out]

    def purge(self) -> None:
        """Lose all that only notifies."""
        for name, queue in self.queues.items():
            if name not in (SUBMIT, DEAD):
                queue.clear()


class Link:
    """One connection of one loop; the same methods and errors as the real one."""

    def __init__(self, world: World, broker: Broker) -> None:
        """Remember the broker."""
        self._world = world
        self._broker = broker
        self._unacked: list[tuple[str, Message]] = []
        broker.links.append(self)
        self.open = False

    def connect(self) -> None:
        """Connect, which may fail."""
        if self._world.happens("broker away"):
            self.close()
            raise unavailable("RabbitMQ is away")
        self.open = True

    def publish(
        self, messages: Sequence[Outgoing], *, timeout_s: float = 10.0
    ) -> Sequence[tuple[Outgoing, str]]:
        """Publish all, or some and fail."""
        if messages:
            self.send(messages)
            self.settle(None)
        return ()

    def send(self, messages: Sequence[Outgoing]) -> None:
        """The broker has them at once, or fails: what it would say later is known here."""
        self.connect()
        name = messages[0].routing_key
        with self._world.effect(f"publish {name}"):
            done = len(messages)
            failed = self._world.happens("publish unconfirmed", name)
            if failed:
                done = self._world.rng.randrange(len(messages))
            failed = failed or self._world.happens("publish unconfirmed, done", name)
            routed = [self._broker.take(one) or not one.required for one in messages[:done]]
            if failed or not all(routed):
                self.close()
                raise Unknown("simulated: not confirmed")

    def settle(self, _sent: None, *, timeout_s: float = 10.0) -> Sequence[tuple[Outgoing, str]]:
        """Tell that nothing was refused; unless the connection is gone meanwhile."""
        if not self.open:
            raise Unknown("simulated: the connection was lost")
        return ()

    def receive(
        self, queue: str, *, limit: int, linger_s: float = 0.005, timeout_s: float = 1.0
    ) -> list[Delivery]:
        """Hand out a batch, in some order."""
        self.connect()
        waiting = self._broker.queues[queue]
        if len(waiting) > 1 and self._world.happens("messages shuffled", queue):
            self._world.rng.shuffle(waiting)
        batch, waiting[:] = waiting[:limit], waiting[limit:]
        deliveries = []
        for message in batch:
            message.deliveries += 1
            if message.deliveries > DELIVERY_LIMIT and queue != DEAD:
                self._broker.queues[DEAD].append(message)
                continue
            self._unacked.append((queue, message))
            out = message.outgoing
            deliveries.append(
                Delivery(
                    body=out.body,
                    message_id=out.message_id or None,
                    reply_to=message.reply_to,
                    correlation_id=out.correlation_id,
                    routing_key=out.routing_key,
                    handle=message,
                    exchange=out.exchange,
                    redelivered=message.deliveries > 1,
                    headers=out.headers,
                )
            )
        return deliveries

    def ack(self, batch: Sequence[Delivery]) -> None:
        """Give up a batch, and whatever was handed out before it."""
        if not batch:
            return
        with self._world.effect("ack"):
            self.connect()
            handles = [message for _, message in self._unacked]
            if batch[-1].handle in handles:
                del self._unacked[: handles.index(batch[-1].handle) + 1]

    def dead_letter(
        self, delivery: Delivery, reason: str, errors: Mapping[str, str] | None = None
    ) -> None:
        """Put a copy into the dead letters."""
        queue = next((name for name, one in self._unacked if one is delivery.handle), "")
        # The clock stands still while a tick runs; a real one does not.
        self._broker.copies += 1
        at = self._world.now + timedelta(microseconds=self._broker.copies)
        self.publish([copy_of(delivery, reason, errors or {}, queue=queue, at=at)])

    def heartbeat(self) -> None:
        """Notice that the connection is gone, as may be."""
        if self.open:
            self.connect()

    def close(self) -> None:
        """Drop the connection: the broker gives what was not acknowledged to somebody else."""
        self.open = False
        for queue, message in self._unacked:
            self._broker.queues[queue].append(message)
        self._unacked.clear()
