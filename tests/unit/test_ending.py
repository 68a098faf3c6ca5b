"""How instances are ended: whether anything runs on them, and what becomes of those that do not end."""

from __future__ import annotations

from typing import Any

import pytest

from atemporal.fleet.ending import nothing_runs
from atemporal.fleet.plan import Memory, Plan, decide
from atemporal.model import Attempt
from atemporal.states import AttemptState, Reason
from tests.unit.test_plan import LIMITS, A, T, ago, attempt, instance, planned, snapshot


def ended(reason: Reason, *, ran: bool = True, age: float = 60, **more: Any) -> Attempt:
    values = {"reason": reason, "running_at": ago(age + 60) if ran else None, **more}
    return attempt(A.EXITED, age=age).model_copy(update=values)


REPORTED = [
    *(Reason.COMPLETED, Reason.EXIT_NONZERO, Reason.SIGNALLED, Reason.OUT_OF_MEMORY),
    Reason.START_FAILED,
]
OPEN = [Reason.CANCELLED, Reason.INSTANCE_LOST, Reason.UNREPORTED, Reason.SPOT_INTERRUPTED]


class TestNothingRuns:
    @pytest.mark.parametrize("reason", REPORTED)
    def test_where_the_machine_said_that_its_container_ended(self, reason: Reason) -> None:
        assert nothing_runs(ended(reason))

    @pytest.mark.parametrize("reason", OPEN)
    def test_not_where_somebody_else_ended_the_attempt_while_it_ran(self, reason: Reason) -> None:
        assert not nothing_runs(ended(reason))

    @pytest.mark.parametrize(
        "reason", [Reason.CANCELLED, Reason.BOOT_DEADLINE, Reason.PULL_FAILED]
    )
    def test_where_no_container_was_ever_started(self, reason: Reason) -> None:
        assert nothing_runs(ended(reason, ran=False))

    def test_a_time_out_is_the_machines_word_only_with_an_exit_code(self) -> None:
        assert nothing_runs(ended(Reason.TIMED_OUT, exit_code=137))
        assert not nothing_runs(ended(Reason.TIMED_OUT))

    @pytest.mark.parametrize("state", [A.WARMING, A.RUNNING, A.READY])
    def test_never_while_the_attempt_is_open(self, state: AttemptState) -> None:
        assert not nothing_runs(attempt(state))


class TestPlan:
    def test_the_instance_of_an_ended_container_is_ended_at_once(self) -> None:
        plan = planned([instance()], ended(Reason.COMPLETED))
        assert (plan.terminate, plan.at_once) == ({"i-1": T.ATTEMPT_ENDED}, {"i-1"})

    def test_of_one_that_was_cancelled_while_it_ran_the_program_gets_its_signal(self) -> None:
        plan = planned([instance()], ended(Reason.CANCELLED))
        assert (plan.terminate, plan.at_once) == ({"i-1": T.ATTEMPT_ENDED}, set())

    def test_a_duplicate_is_left_to_stop_in_order(self) -> None:
        plan = planned([instance(), instance("i-2")], attempt(A.RUNNING))
        assert (plan.terminate, plan.at_once) == ({"i-2": T.DUPLICATE}, set())

    @pytest.mark.parametrize("reason", [Reason.COMPLETED, Reason.CANCELLED])
    def test_what_is_ending_is_not_asked_again(self, reason: Reason) -> None:
        ending = instance(state="shutting-down")
        assert planned([ending], ended(reason)) == Plan()

    def test_a_duplicate_that_is_ending_is_not_asked_again_either(self) -> None:
        ending = instance("i-2", "shutting-down")
        assert planned([instance(), ending], attempt(A.RUNNING)).terminate == {}

    @pytest.mark.parametrize("reason", [Reason.COMPLETED, Reason.CANCELLED])
    def test_what_does_not_come_to_its_end_is_forced_now_and_then(self, reason: Reason) -> None:
        ending = instance(state="shutting-down", age=999)
        late = ended(reason, age=LIMITS.stop_s + 1)
        first = decide(snapshot([ending], late), LIMITS, Memory())
        assert first.plan.forced == {"i-1"}
        assert first.plan.terminate == {"i-1": T.ATTEMPT_ENDED}
        assert first.plan.leaked == {late.ref}
        second = decide(snapshot([ending], late), LIMITS, first.memory)
        assert (second.plan.forced, second.plan.terminate) == (set(), {})
        assert second.memory.forced == first.memory.forced
        before = Memory(forced={"i-1": ago(LIMITS.stop_s + 1)})
        assert decide(snapshot([ending], late), LIMITS, before).plan.forced == {"i-1"}

    def test_since_when_it_ends_ec2_knows_best(self) -> None:
        young = instance(state="shutting-down", age=9999, ended_at=ago(10))
        late = ended(Reason.COMPLETED, age=LIMITS.stop_s + 999)
        assert planned([young], late).forced == set()
        old = instance("i-2", "shutting-down", age=9999, ended_at=ago(LIMITS.stop_s + 1))
        plan = planned([instance(), old], attempt(A.RUNNING))
        assert (plan.forced, plan.terminate) == ({"i-2"}, {"i-2": T.DUPLICATE})

    def test_a_check_of_some_keeps_what_was_forced(self) -> None:
        before = Memory(forced={"i-9": ago(5)})
        after = decide(snapshot([instance()], attempt(A.RUNNING), whole=False), LIMITS, before)
        assert after.memory.forced == before.forced

    def test_what_is_gone_is_forgotten(self) -> None:
        before = Memory(forced={"i-1": ago(5)})
        gone = instance(state="terminated")
        assert decide(snapshot([gone], ended(Reason.COMPLETED)), LIMITS, before).memory == Memory()
