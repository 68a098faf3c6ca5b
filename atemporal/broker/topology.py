"""Exchanges and queues, as they are declared.

Promise: commands, notifications and events have an exchange each, so no binding for one of them, however
wide, gets another: `job.submit` carries an environment, events never do. A message class says which is
its own, and all bindings follow from the classes.
"""

from __future__ import annotations

from kombu import Exchange, Queue

from atemporal.messages import COMMANDS, EVENTS, INTERNAL, MESSAGES

DEAD = "atemporal.dead"

_EXCHANGES = {
    name: Exchange(name, type="topic", durable=True) for name in (COMMANDS, INTERNAL, EVENTS)
}
_WORK_QUEUE = {
    "x-queue-type": "quorum",
    "x-delivery-limit": 20,
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": DEAD,
    # Dead-lettering is at least once only together with this overflow behaviour.
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}

EXCHANGES: tuple[Exchange, ...] = tuple(_EXCHANGES.values())
QUEUES: tuple[Queue, ...] = (
    Queue(DEAD, Exchange(""), DEAD, durable=True, queue_arguments={"x-queue-type": "quorum"}),
    *(
        Queue(
            str(kind.queue),
            _EXCHANGES[kind.exchange],
            kind.type_name(),
            durable=True,
            queue_arguments=_WORK_QUEUE,
        )
        for kind in MESSAGES
        if kind.queue is not None
    ),
)
"""A queue comes once for each of its bindings."""
