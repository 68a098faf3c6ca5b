"""The store against a model of it in a few lines: any transitions, in any order, stale ones among them.

Hypothesis chooses the transitions and, when the two differ, finds the shortest way there.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection

from atemporal.errors import Conflict
from atemporal.model import AttemptRef, ExitRecord, MachineClock, parse_spec
from atemporal.states import Again, Fault, Reason, verdict, verdict_of_scarcity
from atemporal.store import attempts, jobs, launches, starts
from atemporal.store.invariants import violations
from tests.claims import claim_due
from tests.launches import LAUNCH
from tests.servers.postgres import Postgres
from tests.sim.database import Ground
from tests.sim.world import BEGINNING

LIVE = ("launching", "warming", "ready", "running")
# What may be said of an attempt only before it runs.
BEFORE = {
    Reason.LAUNCH_REFUSED: ("launching",),
    Reason.LAUNCH_DEADLINE: ("launching",),
    Reason.BOOT_DEADLINE: ("launching", "warming", "ready"),
    Reason.PULL_DEADLINE: ("launching", "warming", "ready"),
    Reason.NO_CAPACITY: ("launching", "warming", "ready"),
    Reason.CLAIM_DEADLINE: ("ready",),
}
# A new time alone ends an attempt so.
ENDS = [reason for reason in Reason if reason is not Reason.RESCHEDULED]
# Seconds that a lack of capacity may go on.
PATIENCE_S = 3600
WHICH = st.integers(0, 2)
NUMBERS = st.sampled_from([0, 0, 0, -1, 1])
CLAIMS = st.sampled_from(["c1", "c2"])


@dataclass
class Try:
    """An attempt, in the model."""

    begun: int
    state: str = "launching"
    instance: str | None = None
    claim: str | None = None
    reason: Reason | None = None


@dataclass
class Wish:
    """A job, in the model."""

    max_attempts: int
    infra_retries: int
    backoff_s: int
    due: int
    state: str = "scheduled"
    attempt: int = 0
    base: int = 0
    reason: Reason | None = None
    tries: dict[int, Try] = field(default_factory=dict)

    def end(self, reason: Reason, now: int) -> None:
        """What follows the end of the current attempt."""
        current = self.tries[self.attempt]
        current.state, current.reason = "exited", reason
        counted = [one for n, one in sorted(self.tries.items()) if n > self.base and one.reason]
        row: list[Try] = []
        for one in counted:
            row = [*row, one] if one.reason is Reason.NO_CAPACITY else []
        reasons = [one.reason for one in counted if one.reason]
        faults = [reason.fault for reason in reasons if reason is not Reason.NO_CAPACITY]
        after = (
            verdict_of_scarcity(
                in_a_row=len(row), since_s=now - row[0].begun, patience_s=PATIENCE_S
            )
            if row
            else verdict(
                reason,
                program_failures=faults.count(Fault.PROGRAM),
                infra_failures=faults.count(Fault.INFRASTRUCTURE),
                max_attempts=self.max_attempts,
                infra_retries=self.infra_retries,
                backoff_s=self.backoff_s,
            )
        )
        if isinstance(after, Again):
            self.state, self.due = "scheduled", now + after.delay_s
        else:
            self.state, self.reason = "finished", reason


class StoreMachine(RuleBasedStateMachine):
    """Every rule does the same to the store and to the model."""

    ground: Ground

    @initialize(
        jobs=st.lists(
            st.tuples(st.integers(1, 3), st.integers(0, 2), st.sampled_from([0, 60])),
            min_size=1,
            max_size=3,
        )
    )
    def begin_world(self, jobs: list[tuple[int, int, int]]) -> None:
        """Submit some jobs."""
        self.ground.clear()
        self.now = 0
        self.instances = (f"i-{number}" for number in itertools.count(1))
        self.wishes: dict[UUID, Wish] = {}
        with self.tx() as tx:
            for limits in jobs:
                self.submit(tx, *limits)

    def submit(self, tx: Connection, program: int, infra: int, backoff: int) -> None:
        """One job for now."""
        fields = {"max_attempts": program, "infra_retries": infra, "backoff_s": backoff}
        spec = parse_spec({"image": "busybox", **fields})
        made = jobs.submit_one(tx, spec, actor="model")
        self.wishes[made.job_id] = Wish(program, infra, backoff, self.now)

    def tx(self) -> Any:
        """A transaction on the store."""
        return self.ground.engine.begin()

    def pick(self, which: int, off: int) -> tuple[AttemptRef, Wish, Try | None]:
        """A job's current attempt, or the one before or after it."""
        job_id = list(self.wishes)[which % len(self.wishes)]
        wish = self.wishes[job_id]
        number = wish.attempt + off
        return AttemptRef(job_id, number), wish, wish.tries.get(number)

    @rule(seconds=st.sampled_from([1, 30, 60, 4000]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds
        self.ground.set_clock(BEGINNING + timedelta(seconds=self.now))

    @rule()
    def claim_due(self) -> None:
        with self.tx() as tx:
            claimed = set(claim_due(tx, 10, actor="model"))
        expected = set()
        for job_id, wish in self.wishes.items():
            if wish.state == "scheduled" and wish.due <= self.now:
                wish.state, wish.attempt = "queued", wish.attempt + 1
                expected.add(AttemptRef(job_id, wish.attempt))
        assert claimed == expected

    @rule(which=WHICH, off=NUMBERS)
    def begin(self, which: int, off: int) -> None:
        ref, wish, _ = self.pick(which, off)
        expected = wish.state == "queued" and off == 0
        with self.tx() as tx:
            assert launches.begin(tx, ref, LAUNCH, actor="model") == expected
        if expected:
            wish.state, wish.tries[ref.number] = "warming", Try(self.now)

    @rule(which=WHICH, off=NUMBERS)
    def launched(self, which: int, off: int) -> None:
        ref, _, one = self.pick(which, off)
        instance_id = next(self.instances)
        with self.tx() as tx:
            in_time = attempts.launched(tx, ref, instance_id, actor="model")
        assert in_time == (one is not None and one.state == "launching")
        if one is not None and in_time:
            one.state, one.instance = "warming", instance_id
        elif one is not None and one.state != "closed":
            one.instance = one.instance or instance_id

    @rule(which=WHICH, off=NUMBERS, claim=CLAIMS, own=st.sampled_from([True, True, False, None]))
    def claim(self, which: int, off: int, claim: str, own: bool | None) -> None:
        ref, wish, one = self.pick(which, off)
        instance_id = None if own is None else next(self.instances)
        if own and one is not None and one.instance:
            instance_id = one.instance
        expected: bool | None = None
        if one is not None and one.state == "running" and one.claim == claim:
            expected = False
        elif one is not None and one.state in ("launching", "warming", "ready"):
            mine = not one.instance or instance_id in (None, one.instance)
            expected = True if mine else None
        with self.tx() as tx:
            if expected is None:
                with pytest.raises(Conflict):
                    attempts.claim(tx, ref, claim_id=claim, instance_id=instance_id, actor="m")
            else:
                granted = attempts.claim(
                    tx, ref, claim_id=claim, instance_id=instance_id, actor="model"
                )
                assert granted == expected
        if expected and one is not None:
            one.state, one.claim = "running", claim
            wish.state = "running"

    @rule(which=WHICH, off=NUMBERS)
    def ready(self, which: int, off: int) -> None:
        ref, _, one = self.pick(which, off)
        held = one is not None and one.state in ("launching", "warming", "ready")
        clock = MachineClock()
        with self.tx() as tx:
            if one is not None and not held:
                with pytest.raises(Conflict):
                    starts.ready(tx, ref, instance_id=None, clock=clock, actor="model")
                return
            first = starts.ready(tx, ref, instance_id=None, clock=clock, actor="model")
            assert first == (held and one is not None and one.state != "ready")
        if one is not None:
            one.state = "ready"

    @rule(which=WHICH, off=NUMBERS, reason=st.sampled_from(ENDS))
    def end(self, which: int, off: int, reason: Reason) -> None:
        ref, wish, one = self.pick(which, off)
        expected = one is not None and one.state in BEFORE.get(reason, LIVE)
        code = {Reason.COMPLETED: 0, Reason.EXIT_NONZERO: 7}.get(reason)
        record = None if code is None else ExitRecord(exit_code=code)
        with self.tx() as tx:
            ended = attempts.end(
                tx, ref, reason, actor="model", exit_record=record, patience_s=PATIENCE_S
            )
        assert ended == expected
        if expected:
            wish.end(reason, self.now)

    @rule(which=WHICH, off=NUMBERS)
    def close(self, which: int, off: int) -> None:
        ref, _, one = self.pick(which, off)
        expected = one is not None and one.state == "exited"
        with self.tx() as tx:
            assert attempts.close(tx, ref, actor="model") == expected
        if expected and one is not None:
            one.state = "closed"

    @rule(which=WHICH)
    def cancel(self, which: int) -> None:
        ref, wish, one = self.pick(which, 0)
        with self.tx() as tx:
            if wish.state == "finished" and wish.reason is not Reason.CANCELLED:
                with pytest.raises(Conflict):
                    jobs.cancel(tx, ref.job_id, actor="model")
                return
            live = one is not None and one.state in LIVE
            assert jobs.cancel(tx, ref.job_id, actor="model") == (ref if live else None)
        if wish.state != "finished":
            wish.state, wish.reason = "finished", Reason.CANCELLED
            if live and one is not None:
                one.state, one.reason = "exited", Reason.CANCELLED

    @precondition(lambda self: any(one.state == "finished" for one in self.wishes.values()))
    @rule(which=WHICH)
    def retry(self, which: int) -> None:
        ref, wish, _ = self.pick(which, 0)
        with self.tx() as tx:
            if wish.state != "finished":
                with pytest.raises(Conflict):
                    jobs.retry(tx, ref.job_id, actor="model")
                return
            jobs.retry(tx, ref.job_id, actor="model")
        wish.state, wish.reason, wish.base, wish.due = "scheduled", None, wish.attempt, self.now

    @invariant()
    def the_store_is_the_model(self) -> None:
        with self.tx() as tx:
            for job_id, wish in self.wishes.items():
                job = jobs.get(tx, job_id)
                assert (job.state, job.attempt, job.reason) == (
                    wish.state,
                    wish.attempt,
                    wish.reason,
                )
                assert [
                    (one.number, one.state, one.instance_id, one.reason) for one in job.attempts
                ] == [(n, one.state, one.instance, one.reason) for n, one in wish.tries.items()]

    def teardown(self) -> None:
        with self.tx() as tx:
            assert violations(tx) == []


@pytest.fixture(scope="module")
def ground(postgres_server: Postgres) -> Iterator[Ground]:
    ground = Ground(postgres_server.create_database())
    yield ground
    ground.close()


def test_the_store_does_what_the_model_does(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No jitter: the model knows the very second of the next attempt.
    monkeypatch.setattr("atemporal.store.retries.random.uniform", lambda _, most: most)

    class Machine(StoreMachine):
        pass

    Machine.ground = ground
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
