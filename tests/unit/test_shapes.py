"""Which attempts one call may ask for: those that were asked for alike."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from atemporal.model import Attempt, JobSpec, Launch, parse_spec
from atemporal.states import AttemptState
from services.launcher.offerings import Offering, offerings
from services.launcher.shapes import alike
from tests.launches import LAUNCH

NOT_CALLED = LAUNCH.model_copy(update={"calls": 0})


def begun(*, launch: Launch = NOT_CALLED, **machine: Any) -> tuple[Attempt, JobSpec]:
    job_id: UUID = uuid4()
    attempt = Attempt(
        job_id=job_id,
        number=1,
        state=AttemptState.LAUNCHING,
        launch=launch,
        created_at=datetime.now(UTC),
    )
    return attempt, parse_spec({"image": "nginx", "machine": machine})


def sizes(*attempts: tuple[Attempt, JobSpec], at_most: int = 200) -> list[int]:
    def offerings_of(spec: JobSpec) -> tuple[Offering, ...]:
        return offerings(spec.machine, instance_types=("t3.small",), subnets=("subnet-a",))

    found = alike(attempts, offerings_of=offerings_of, at_most=lambda _: at_most)
    return sorted(map(len, found))


def test_the_same_wishes_are_one_call() -> None:
    assert sizes(*(begun() for _ in range(5))) == [5]
    assert sizes(*(begun() for _ in range(5)), at_most=2) == [1, 2, 2]


@pytest.mark.parametrize(
    "machine",
    [
        {"instance_types": ["t3.large"]},
        {"subnets": ["subnet-b"]},
        {"capacity_type": "spot"},
        # What it asks for is what the settings say today; tomorrow they may say something else.
        {"instance_types": ["t3.small"]},
        {"subnets": ["subnet-a"]},
    ],
)
def test_another_wish_is_another_call(machine: dict[str, Any]) -> None:
    assert sizes(begun(), begun(**machine)) == [1, 1]


def test_one_that_may_have_been_asked_for_is_alone() -> None:
    called = NOT_CALLED.model_copy(update={"calls": 1})
    assert sizes(begun(launch=called), begun(launch=called), begun()) == [1, 1, 1]
