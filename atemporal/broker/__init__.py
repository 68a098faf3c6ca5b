"""RabbitMQ: what is declared there, and the connections that publish and consume."""

from atemporal.broker.dead_letters import REASON_HEADER, ROUTING_KEY_HEADER
from atemporal.broker.envelope import Delivery, Outgoing
from atemporal.broker.link import Link, declare
from atemporal.broker.topology import DEAD, EXCHANGES, QUEUES

__all__ = [
    "DEAD",
    "EXCHANGES",
    "QUEUES",
    "REASON_HEADER",
    "ROUTING_KEY_HEADER",
    "Delivery",
    "Link",
    "Outgoing",
    "declare",
]
