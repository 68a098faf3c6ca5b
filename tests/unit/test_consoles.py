"""How often a dead machine's console is asked, and that what is posted late is read all the same."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from typing import Any
from uuid import UUID

import pytest

from atemporal.cloud import Throttled
from atemporal.errors import Retry
from atemporal.fleet.plan import CONSOLE_S
from atemporal.model import Attempt, AttemptRef, Launch
from atemporal.states import AttemptState
from services.reaper.consoles import KEPT_S, PAUSE_S, Consoles, Looks

SWEEP_EVERY_S = 10
LAUNCH = Launch(
    image_id="ami-1", instance_type="t3.small", callback_base="http://x", key_id="k", deadline_s=9
)


def attempts() -> Iterator[Attempt]:
    """Attempts that run, each on its instance."""
    for number in count(1):
        yield Attempt(
            job_id=UUID(int=number),
            number=1,
            state=AttemptState.RUNNING,
            launch=LAUNCH,
            instance_id=f"i-{number:017x}",
            created_at=datetime(2030, 1, 1, tzinfo=UTC),
        )


class Ec2:
    """EC2's consoles: each says something from a certain second on."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls = 0
        self.fault: Exception | None = None
        self.posts: dict[str, tuple[float, str]] = {}

    def console(self, instance_id: str, *, live: bool = True) -> str:
        """Count the calls that the real one makes: one for each copy, until one says something."""
        at, text = self.posts.get(instance_id, (float("inf"), ""))
        # The live console of a machine that is gone stays as it was.
        self.calls += 1 + live
        if self.fault is not None:
            raise self.fault
        return text if self.now >= at else ""


class Reader:
    """Sweeps that look at the consoles of attempts whose machines are gone since second 0."""

    def __init__(self, ec2: Any) -> None:
        self.ec2 = ec2
        self.looks = Looks()
        self.found: dict[AttemptRef, float] = {}

    def sweep(self, lost: dict[AttemptRef, Attempt]) -> None:
        """Look once; at `CONSOLE_S` for the last time."""
        left = {ref: one for ref, one in lost.items() if ref not in self.found}
        last = left.keys() if self.ec2.now >= CONSOLE_S else ()
        consoles = Consoles(self.ec2, looks=self.looks, clock=lambda: self.ec2.now)
        for ref in consoles.in_time(left, last=last):
            if consoles.read(left[ref], last=ref in last):
                self.found[ref] = self.ec2.now

    def run(self, lost: dict[AttemptRef, Attempt]) -> None:
        """Sweep until they are given up."""
        while self.ec2.now <= CONSOLE_S:
            self.sweep(lost)
            self.ec2.now += SWEEP_EVERY_S


def lost(many: int) -> dict[AttemptRef, Attempt]:
    return {one.ref: one for _, one in zip(range(many), attempts(), strict=False)}


def test_a_console_that_says_nothing_is_asked_ever_less_often() -> None:
    reader = Reader(Ec2())
    reader.run(lost(1))
    assert reader.ec2.calls <= 12


@pytest.mark.parametrize(("silent", "late"), [(15, 15), (30, 0), (0, 30)])
def test_a_hundred_jobs_with_thirty_dead_machines_cost_a_few_calls_each(
    silent: int, late: int
) -> None:
    reader = Reader(Ec2())
    dead = lost(silent + late)
    for second, one in zip(range(60, 240, 6), list(dead.values())[silent:], strict=False):
        text = f'atemporal-exit {one.ref.id} {{"exit_code": 3}}\n'
        reader.ec2.posts[one.instance_id or ""] = (second, text)
    reader.run(dead)
    assert len(reader.found) == late
    assert reader.ec2.calls <= 30 * 12


@pytest.mark.parametrize("seconds", [0, 1, 59, 117, 160, 204, 240, 299, 300])
def test_a_record_that_ec2_posts_late_is_read_within_a_minute(seconds: int) -> None:
    reader = Reader(Ec2())
    ((ref, one),) = lost(1).items()
    text = f'atemporal-exit {ref.id} {{"exit_code": 3}}\n'
    reader.ec2.posts[one.instance_id or ""] = (seconds, text)
    reader.run({ref: one})
    assert seconds <= reader.found[ref] <= seconds + PAUSE_S[1] + SWEEP_EVERY_S


def test_one_that_could_not_be_read_is_asked_again_at_once_and_comes_last() -> None:
    reader = Reader(Ec2())
    dead = lost(3)
    reader.ec2.fault = Throttled("reading", "RequestLimitExceeded")
    with pytest.raises(Retry):
        reader.sweep(dead)
    reader.ec2.fault = None
    consoles = Consoles(reader.ec2, looks=reader.looks, clock=lambda: reader.ec2.now)
    first, *others = dead
    assert list(consoles.in_time(dead)) == [*others, first]


def test_what_it_remembers_is_bounded_also_in_a_process_that_never_sweeps() -> None:
    reader = Reader(Ec2())
    for hour in range(50):
        reader.ec2.now = hour * KEPT_S
        reader.sweep({one.ref: one for _, one in zip(range(10), MANY, strict=False)})
    assert len(reader.looks) <= 20


MANY = attempts()


def test_what_is_lost_no_more_is_forgotten() -> None:
    reader = Reader(Ec2())
    dead = lost(5)
    reader.sweep(dead)
    kept = list(dead)[:2]
    reader.looks.keep_only(kept)
    assert len(reader.looks) == 2
