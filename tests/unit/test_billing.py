"""EC2's billing rules: whole seconds, a minute at least, exact to the billionth of a dollar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atemporal.billing import NANO, Price, amount, billed_s, dollars
from atemporal.model import Attempt, Job, JobSpec
from atemporal.states import AttemptState, JobState
from tests.launches import LAUNCH

AT = datetime(2030, 1, 1, tzinfo=UTC)
HOUR = 3600
MONTH = 30 * 86_400


@pytest.mark.parametrize(
    ("passed_s", "billed"),
    [(0, 60), (59.999, 60), (60, 60), (60.001, 61), (61, 61), (3599.5, 3600), (-5, 60)],
)
def test_seconds_that_have_begun_count_and_a_minute_at_least(passed_s: float, billed: int) -> None:
    assert billed_s(AT, AT + timedelta(seconds=passed_s)) == billed


@pytest.mark.parametrize(
    ("price", "seconds", "cost"),
    [
        # t3.small for an hour, and for the least: 0.0208 / 60 is 0.000346666...
        (Price(amount("0.0208")), HOUR, "0.0208"),
        (Price(amount("0.0208")), 60, "0.000346667"),
        # AWS' own example: 2,000 GB at 0.08 for twelve hours are 2.67 dollars.
        (Price(0, amount("0.08"), 2000), 12 * HOUR, "2.666666667"),
        (Price(amount("0.0208"), amount("0.08"), 30), MONTH, "17.376"),
        # Half of a billionth is one.
        (Price(1), 1800, "0.000000001"),
        (Price(1), 1799, "0.00"),
    ],
)
def test_what_instance_and_disks_cost(price: Price, seconds: int, cost: str) -> None:
    assert dollars(price.cost(seconds)) == cost


def test_an_hour_costs_what_the_price_says() -> None:
    price = Price(amount("0.0208"), amount("0.08"), 30)
    assert price.per_hour == price.cost(HOUR)


@given(st.integers(0, 10**15))
def test_an_amount_survives_being_written(nano: int) -> None:
    text = dollars(nano)
    assert len(text.partition(".")[2]) >= 2
    if nano < 10**6 * NANO:
        assert amount(text) == nano


@pytest.mark.parametrize(
    "text", ["", "1,50", "-1", "1e3", ".5", "1.", "01", "1000000", "0.0000000001", "1.50\n", "١"]
)
def test_what_is_no_amount_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match=r"write dollars like 1\.50"):
        amount(text)


def attempt(number: int = 1, **fields: object) -> Attempt:
    launch = LAUNCH.model_copy(update={"hour_price": amount("3.6")})
    return Attempt.model_validate(
        {
            "job_id": UUID(int=1),
            "number": number,
            "state": AttemptState.RUNNING,
            "launch": launch,
            "instance_id": f"i-{number}",
            "created_at": AT,
            "launched_at": AT,
            **fields,
        }
    )


LATER = AT + timedelta(seconds=90)


@pytest.mark.parametrize(
    ("fields", "cost"),
    [
        ({}, "0.09"),
        # Its end was seen, and is not confirmed yet.
        ({"billed_until": AT + timedelta(seconds=70)}, "0.07"),
        # What was booked stays, whatever the times say.
        ({"booked": 5 * NANO, "billed_until": LATER}, "5.00"),
        ({"instance_id": None, "launched_at": None}, "0.00"),
        ({"launch": LAUNCH}, None),
        # Closed by a release without bookings: it costs no more.
        ({"state": "closed", "closed_at": AT + timedelta(seconds=80)}, "0.08"),
    ],
)
def test_what_an_attempt_has_cost_so_far(fields: dict[str, Any], cost: str | None) -> None:
    nano = attempt(**fields).cost_at(LATER)
    assert (None if nano is None else dollars(nano)) == cost


@pytest.mark.parametrize(
    ("tries", "cost"),
    [
        ((), 0),
        ((attempt(booked=7), attempt(2)), 7 + 90 * NANO // 1000),
        ((attempt(booked=7), attempt(2, launch=LAUNCH)), None),
    ],
)
def test_a_job_costs_what_its_attempts_do_if_that_is_known(
    tries: tuple[Attempt, ...], cost: int | None
) -> None:
    job = Job(
        id=UUID(int=1),
        spec=JobSpec(image="busybox"),
        state=JobState.RUNNING,
        run_at=AT,
        due_at=AT,
        created_at=AT,
        updated_at=AT,
        read_at=LATER,
        attempts=tries,
    )
    assert job.cost == cost
