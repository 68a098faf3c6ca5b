"""What an ordinary run leaves out of the crash matrix, the runs of the next days try."""

from __future__ import annotations

import pytest

from tests.chaos.cases import FULL, PARTS, SEED, SIDES, all_cases, chosen_seed, in_full, sample
from tests.chaos.dying import Point

COUNTED = {("due", "commit"): 7, ("relay", "commit"): 1, ("submit", "publish reply"): 6}
CASES = all_cases(COUNTED)
SCENARIOS = ("scheduler: a job message comes", "api: submit, claim, exit", "")
DAYS = range(739_000, 739_000 + 4 * PARTS)


def test_every_effect_has_a_case_on_each_side() -> None:
    assert len(CASES) == len(set(CASES)) == 2 * sum(COUNTED.values())
    assert CASES[:2] == [Point("due", "commit", 1, "before"), Point("due", "commit", 1, "after")]


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("first", DAYS[: 3 * PARTS])
def test_days_in_a_row_try_every_case(scenario: str, first: int) -> None:
    week = range(first, first + PARTS)
    assert {case for day in week for case in sample(scenario, CASES, day)} == set(CASES)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_sample_is_about_a_fifth(scenario: str) -> None:
    sizes = [len(sample(scenario, CASES, day)) for day in DAYS]
    assert len(CASES) / PARTS <= sum(sizes) / len(sizes) <= len(CASES) / PARTS + len(SIDES)
    assert max(sizes) <= len(CASES) / 2


@pytest.mark.parametrize("times", [1, 2, 3, 30])
@pytest.mark.parametrize("day", DAYS)
def test_a_sample_has_both_sides_however_small_the_scenario(times: int, day: int) -> None:
    tried = sample("reaper", all_cases({("reap", "ack"): times}), day)
    assert {case.when for case in tried} == set(SIDES)
    assert len(tried) == len(set(tried))


@pytest.mark.parametrize("day", DAYS)
def test_a_case_stays_in_its_part_whatever_else_was_counted(day: int) -> None:
    more = all_cases({**COUNTED, ("another", "ack"): 1, ("due", "commit"): 12})
    again = [case for case in sample("launcher", more, day) if case in CASES]
    # A sample may hold one more for a side that it would lack.
    assert len(set(again) ^ set(sample("launcher", CASES, day))) <= 1


def test_the_seed_is_the_one_given_else_the_days(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SEED, "7")
    assert chosen_seed() == 7
    monkeypatch.setenv(SEED, "")
    assert chosen_seed() > DAYS[0]


def test_all_of_it_is_tried_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FULL, "")
    assert not in_full()
    monkeypatch.setenv(FULL, "1")
    assert in_full()
