"""The state machines and what follows an end."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atemporal.states import (
    ATTEMPT_TRANSITIONS,
    JOB_TRANSITIONS,
    LIVE_ATTEMPT,
    Again,
    AttemptState,
    Fault,
    Finish,
    JobState,
    Outcome,
    Reason,
    verdict,
    verdict_of_scarcity,
)

BUDGET: dict[str, Any] = {
    "program_failures": 1,
    "infra_failures": 1,
    "max_attempts": 2,
    "infra_retries": 2,
    "backoff_s": 10,
}


def test_every_state_can_be_reached_and_left() -> None:
    assert {after for _, after in JOB_TRANSITIONS} == set(JobState)
    assert {before for before, _ in JOB_TRANSITIONS} == set(JobState)
    assert {after for _, after in ATTEMPT_TRANSITIONS} == set(AttemptState) - {
        AttemptState.LAUNCHING
    }


def test_a_live_attempt_can_always_end_and_an_ended_one_only_close() -> None:
    for state in LIVE_ATTEMPT:
        assert (state, AttemptState.EXITED) in ATTEMPT_TRANSITIONS
    after_exit = {after for before, after in ATTEMPT_TRANSITIONS if before is AttemptState.EXITED}
    assert after_exit == {AttemptState.CLOSED}


def test_success_and_operators_ends_are_final() -> None:
    for reason in (Reason.COMPLETED, Reason.CANCELLED, Reason.UNREPORTED, Reason.LAUNCH_REFUSED):
        assert verdict(reason, **BUDGET) == Finish(reason.outcome)


def test_the_program_and_the_infrastructure_spend_budgets_of_their_own() -> None:
    spent = {**BUDGET, "program_failures": 2}
    assert verdict(Reason.EXIT_NONZERO, **spent) == Finish(Outcome.FAILED)
    assert verdict(Reason.BOOT_DEADLINE, **spent) == Again(10)
    spent = {**BUDGET, "infra_failures": 3}
    assert verdict(Reason.EXIT_NONZERO, **spent) == Again(10)
    assert verdict(Reason.INSTANCE_LOST, **spent) == Finish(Outcome.LOST)


def test_exit_codes_can_be_named_for_and_against_another_attempt() -> None:
    def after(code: int | None, **rules: Any) -> object:
        return verdict(Reason.EXIT_NONZERO, **BUDGET, exit_code=code, **rules)

    assert after(75, retry_on=(75, 137)) == Again(10)
    assert after(1, retry_on=(75, 137)) == Finish(Outcome.FAILED)
    assert after(2, no_retry_on=(2,)) == Finish(Outcome.FAILED)
    assert after(1, no_retry_on=(2,)) == Again(10)
    lost = verdict(Reason.INSTANCE_LOST, **BUDGET, retry_on=(75,))
    assert lost == Again(10), "the rules are about the program"


def test_a_lack_of_capacity_is_waited_out_as_long_as_there_is_patience() -> None:
    def after(in_a_row: int, since_s: float) -> object:
        return verdict_of_scarcity(in_a_row=in_a_row, since_s=since_s, patience_s=3600)

    assert [after(n, 3599) for n in (1, 2, 3, 99)] == [Again(s) for s in (5, 10, 20, 300)]
    assert after(1, 3600) == Finish(Outcome.FAILED)


def test_the_delay_doubles_up_to_an_hour() -> None:
    many = {**BUDGET, "infra_retries": 100}
    delays = []
    for failures in (1, 2, 3, 90):
        after = verdict(Reason.PULL_FAILED, **{**many, "infra_failures": failures})
        assert isinstance(after, Again)
        delays.append(after.delay_s)
    assert delays == [10, 20, 40, 3600]


@given(
    st.sampled_from(Reason),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(1, 9),
    st.integers(0, 9),
)
def test_no_budget_is_ever_exceeded(
    reason: Reason, program: int, infra: int, max_attempts: int, infra_retries: int
) -> None:
    after = verdict(
        reason,
        program_failures=program,
        infra_failures=infra,
        max_attempts=max_attempts,
        infra_retries=infra_retries,
        backoff_s=1,
    )
    if isinstance(after, Again):
        spent, allowed = (
            (infra, infra_retries + 1)
            if reason.fault is Fault.INFRASTRUCTURE
            else (program, max_attempts)
        )
        assert spent < allowed


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_meaning(reason: Reason) -> None:
    assert reason.outcome in Outcome
    assert reason.fault in Fault
