"""What instances cost: booked when an attempt is closed, and what those that are there cost in an hour.

Promise: the counters grow by what was booked, after its commit: a crash in between loses it for the
counters alone. The gauges are the sweeping reaper's.
"""

from __future__ import annotations

from collections.abc import Iterable

from atemporal.billing import NANO
from atemporal.cloud import Instance
from atemporal.metrics import Aggregate, counter, gauge
from atemporal.model import Attempt, AttemptRef
from atemporal.states import AttemptState
from atemporal.store import costs
from atemporal.store.rows import Transaction

CAPACITY_TYPES = ("on-demand", "spot")

COST = counter(
    "atemporal_cost_usd_total",
    "What instances of closed attempts cost, in US dollars, by the price table of their launch.",
    capacity_type=CAPACITY_TYPES,
)
BILLED = counter(
    "atemporal_billed_seconds_total",
    "Seconds that are billed for the instances of closed attempts, with or without a price.",
    capacity_type=CAPACITY_TYPES,
)
UNPRICED = counter(
    "atemporal_unpriced_attempts_total",
    "Closed attempts of whose instance no price was known at its launch.",
)
RATE = gauge(
    "atemporal_cost_usd_per_hour",
    "What the instances cost in an hour that are there now, in US dollars, by their prices.",
    aggregate=Aggregate.ONE,
    capacity_type=CAPACITY_TYPES,
)


def book(tx: Transaction, ref: AttemptRef, instance: Instance | None) -> Attempt | None:
    """Write what a closed attempt cost, by EC2's words on its instance; as `costs.book`."""
    return costs.book(
        tx,
        ref,
        launched_at=instance.launched_at if instance else None,
        ended_at=instance.ended_at if instance else None,
    )


def count(booked: Attempt | None) -> None:
    """Count what was booked, once it is committed."""
    if booked is None:
        return
    BILLED.labels(booked.launch.capacity_type).inc(booked.billed_s or 0)
    if booked.booked is None:
        UNPRICED.inc()
    else:
        COST.labels(booked.launch.capacity_type).inc(booked.booked / NANO)


def report_rate(known: Iterable[Attempt]) -> None:
    """Show what the instances of open attempts cost in an hour that have not been seen to end."""
    rates = dict.fromkeys(CAPACITY_TYPES, 0)
    for one in known:
        is_there = one.instance_id is not None and one.billed_until is None
        if is_there and one.state is not AttemptState.CLOSED and one.launch.price:
            rates[one.launch.capacity_type] += one.launch.price.per_hour
    for capacity_type, rate in rates.items():
        RATE.labels(capacity_type).set(rate / NANO)
