"""The chaos run's judge of what is booked: fed with what is right, and with each kind of difference."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.chaos.bills import Bill, bill, differences


def record(**fields: Any) -> dict[str, Any]:
    """A twin's record of an instance that ran for 100.5 s."""
    return {
        "running_at": 1000.0,
        "ending_at": 1100.5,
        "transition_reason": "User initiated (1970-01-01 00:18:20 GMT)",
        "parameters": {"InstanceType": "t3.small"},
        **fields,
    }


SPOT = {"InstanceType": "t3.small", "InstanceMarketOptions": {"MarketType": "spot"}}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Bill(100, Decimal("2.08") * 100 / 3600)),
        ({"ending_at": 1001.0}, Bill(60, Decimal("2.08") / 60)),
        ({"parameters": SPOT}, Bill(100, Decimal("0.62") * 100 / 3600)),
        # It powered itself off: EC2 does not tell when.
        ({"transition_reason": ""}, Bill(101, Decimal("2.08") * 101 / 3600, exact=False)),
        # Never running, or not ended: not billed yet.
        ({"running_at": None}, Bill(0, Decimal(0), exact=False)),
        ({"ending_at": None}, Bill(0, Decimal(0), exact=False)),
    ],
)
def test_a_bill_follows_from_the_twins_times(fields: dict[str, Any], expected: Bill) -> None:
    assert bill(record(**fields)) == expected


BILLS = {f"i-{n}": bill(record()) for n in range(3)}
BILLS["i-3"] = bill(record(transition_reason=""))
BILLS["i-4"] = bill(record(running_at=None))


def judged(**changes: Bill | None) -> list[str]:
    recorded = {**BILLS, **{name.replace("_", "-"): one for name, one in changes.items()}}
    return list(differences({name: one for name, one in recorded.items() if one}, BILLS))


CENTS = Decimal("0.0101")


def test_bookings_that_agree_are_whole() -> None:
    assert judged() == []
    # Less than a cent by what EC2 tells; more where it does not tell.
    assert judged(i_1=Bill(98, BILLS["i-1"].cost - Decimal("0.0099"))) == []
    assert judged(i_3=Bill(220, Decimal(1)), i_4=Bill(60, Decimal(1))) == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"i_1": None}, "i-1 is not booked"),
        ({"i_4": None}, "i-4 is not booked"),
        ({"i_9": Bill(60, Decimal(0))}, "the twin had none"),
        ({"i_1": Bill(60, BILLS["i-1"].cost)}, "billed for 40 s more"),
        ({"i_3": Bill(60, BILLS["i-3"].cost)}, "billed for 41 s more"),
        ({"i_3": Bill(222, BILLS["i-3"].cost)}, "billed for 121 s less"),
        ({"i_1": Bill(100, BILLS["i-1"].cost + CENTS)}, "were billed"),
        ({"i_1": Bill(100, BILLS["i-1"].cost - CENTS)}, "were billed"),
    ],
)
def test_each_kind_of_difference_is_seen(changes: dict[str, Bill | None], why: str) -> None:
    found = judged(**changes)
    assert len(found) == 1
    assert why in found[0]
