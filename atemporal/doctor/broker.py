"""Checks of RabbitMQ: it answers, all is declared as it should be, we may use it, somebody reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from atemporal.broker import DEAD, EXCHANGES, QUEUES
from atemporal.broker.inspection import Inspection, missing
from atemporal.doctor.check import Check, Result, ok, unchecked, warning, worst, wrong
from atemporal.doctor.daemons import is_all_in_one
from atemporal.doctor.instruments import Instruments
from atemporal.doctor.settings import VALUES
from atemporal.errors import Refused, Unavailable
from atemporal.event_types import EVENT_TYPES
from atemporal.messages import EVENTS, INTERNAL, LAUNCH, MESSAGES, REAP, SCHEDULE, SUBMIT
from atemporal.plural import counted

REACHABLE, TOPOLOGY = "broker.reachable", "broker.topology"
_DECLARE = "run `atemporal broker declare` with a user that may configure"
_READERS: dict[str, str] = {
    **dict.fromkeys((SUBMIT, SCHEDULE, DEAD), "scheduler"),
    LAUNCH: "launcher",
    REAP: "reaper",
}
_WITHIN = unchecked(
    "the broker is inside the process of `atemporal up`: nobody else sees it",
    "nothing; where daemons run beside it, run RabbitMQ and set ATEMPORAL_BROKER_URL before `up`",
)
# Any of these loses messages, or lets them wait where nobody looks.
_HARMFUL = frozenset(
    {
        *("message-ttl", "expires", "max-length", "max-length-bytes", "overflow"),
        *("dead-letter-exchange", "dead-letter-routing-key", "dead-letter-strategy"),
        *("delivery-limit", "alternate-exchange"),
    }
)


def reachable(instruments: Instruments) -> Result:
    """It answers, and lets us in."""
    settings = instruments.settings
    if settings.broker_url.get_secret_value().startswith("memory:"):
        return _WITHIN
    try:
        with instruments.broker() as broker:
            return ok(f"{broker.version}, virtual host {broker.vhost}, user {broker.user}")
    except Unavailable:
        if "broker_url" in settings.model_fields_set or not is_all_in_one(instruments):
            raise
        return _WITHIN


def topology(instruments: Instruments) -> Result:
    """Every exchange and queue is there, of its type and with its arguments."""
    with instruments.broker() as broker:
        parts = [*_exchanges(broker), *_queues(broker)]
    return worst(parts, well=f"{len(EXCHANGES)} exchanges and {len(_READERS)} queues as declared")


def _exchanges(broker: Inspection) -> Iterator[Result]:
    for exchange in EXCHANGES:
        if not broker.has_exchange(exchange):
            yield wrong(f"there is no exchange {exchange.name}", _DECLARE)
        else:
            try:
                how = broker.difference(exchange)
            except Refused:
                yield _invisible(f"exchange {exchange.name}")
                continue
            if how:
                yield wrong(
                    f"exchange {exchange.name} is not as declared: {how}",
                    f"stop the daemons, delete {exchange.name}, then {_DECLARE}",
                )


def _queues(broker: Inspection) -> Iterator[Result]:
    for queue in _queues_once():
        if broker.queue(queue.name) is None:
            yield wrong(f"there is no queue {queue.name}", _DECLARE)
            continue
        try:
            how = broker.difference(queue)
        except Refused:
            yield _invisible(f"queue {queue.name}")
            continue
        if how:
            yield wrong(
                f"queue {queue.name} is not as declared: {how}",
                f"stop the daemons, let its messages be read or copied, delete {queue.name}, then "
                f"{_DECLARE}",
            )


def _invisible(what: str) -> Result:
    return unchecked(
        f"whether {what} has the right arguments: our user may not configure, so nobody says",
        "run doctor with a user that may configure",
    )


def rights(instruments: Instruments) -> Result:
    """Our user may do what the daemons do."""
    settings = instruments.settings
    lacks: list[str] = []
    with instruments.broker() as broker:
        user = broker.user
        for queue in _READERS:
            if broker.queue(queue) and not broker.may_read(queue):
                lacks.append(f"read on {queue}")
        for exchange, key in _published():
            if not broker.may_write(exchange, key):
                lacks.append(f"write on {exchange or 'amq.default'} ({key})")
        if settings.broker_declare:
            lacks += _not_configured(broker)
    if not lacks:
        also = "configure, write and read" if settings.broker_declare else "write and read"
        return ok(f"{user} may {also}")
    return wrong(
        f"user {user} lacks: {'; '.join(dict.fromkeys(lacks))}",
        f"`rabbitmqctl set_permissions` for {user} on this virtual host, and its topic permissions "
        "(docs/messages.md); or ATEMPORAL_BROKER_DECLARE=false where daemons may not configure",
    )


def _not_configured(broker: Inspection) -> Iterator[str]:
    """What there is that our user may not declare."""
    there = [one for one in EXCHANGES if broker.has_exchange(one)]
    for one in (*there, *(queue for queue in _queues_once() if broker.queue(queue.name))):
        try:
            broker.difference(one)
        except Refused:
            yield f"configure on {one.name}"


def _queues_once() -> list[Any]:
    """The queues, each with one of its bindings."""
    return list({one.name: one for one in QUEUES}.values())


def _published() -> list[tuple[str, str]]:
    """Where our daemons publish, with routing keys that a topic permission may tell from each other."""
    notifications = [kind.type_name() for kind in MESSAGES if kind.exchange == INTERNAL]
    events = {name.partition(".")[0]: name for name in EVENT_TYPES}
    return [
        *((INTERNAL, key) for key in notifications),
        *((EVENTS, key) for key in events.values()),
        ("", DEAD),
    ]


def bindings(instruments: Instruments) -> Result:
    """Every queue gets its messages, and no policy takes them away."""
    if not instruments.management:
        return unchecked(
            "AMQP has no question for bindings and policies; daemons that may configure bind their "
            "queues whenever they connect",
            f"give --management http://host:15672, or {_DECLARE}: it repeats safely",
        )
    with instruments.broker() as broker:
        management = broker.management(instruments.management)
    try:
        lost = missing(QUEUES, management.bindings())
        policies = management.policies()
    except Refused as error:
        return unchecked(str(error), "correct --management; its user needs the tag `monitoring`")
    parts = [
        wrong(
            f"exchange {one.exchange} sends no {one.routing_key} to the queue {one.queue}",
            _DECLARE,
        )
        for one in lost
    ]
    names = list(_READERS)
    for policy in policies:
        harm = sorted(_HARMFUL & policy.definition.keys())
        hit = [name for name in names if re.search(policy.pattern, name)]
        if harm and hit:
            parts.append(
                warning(
                    f"policy {policy.name} sets {', '.join(harm)} of {', '.join(hit)}",
                    f"`rabbitmqctl clear_policy {policy.name}`, or a pattern that leaves our queues out",
                )
            )
    return worst(parts, well="every binding is there, no policy changes our queues")


def consumers(instruments: Instruments) -> Result:
    """Somebody reads each queue."""
    parts: list[Result] = []
    waiting: list[str] = []
    with instruments.broker() as broker:
        for name, daemon in _READERS.items():
            found = broker.queue(name)
            if found is None:
                continue
            if not found.consumers:
                parts.append(
                    wrong(
                        f"nobody reads {name}, with {counted(found.messages, 'message')} in it: "
                        f"no {daemon} runs",
                        f"start a {daemon} with this ATEMPORAL_BROKER_URL, and see its log and /readyz",
                    )
                )
            elif found.messages:
                waiting.append(f"{found.messages} in {name}")
    return worst(
        parts, well=f"each queue has a reader; waiting: {', '.join(waiting) or 'nothing'}"
    )


CHECKS = (
    Check(REACHABLE, reachable, (VALUES,)),
    Check(TOPOLOGY, topology, (REACHABLE,)),
    Check("broker.bindings", bindings, (REACHABLE,)),
    Check("broker.rights", rights, (REACHABLE,)),
    Check("broker.consumers", consumers, (REACHABLE,)),
)
